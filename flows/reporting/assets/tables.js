"use strict";
/* Tables that stand in the page: sorted by a column, and searched. */

report.tables = (() => {
  const { element, find } = report.dom;

  /** Let the tables be sorted, and the results be searched. */
  function start() {
    document.querySelectorAll("table.sortable").forEach(makeSortable);
    find("filter-results")?.addEventListener("input", (event) => filter(event.target.value));
  }

  function makeSortable(table) {
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = element("button", { type: "button", class: "sort" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => sort(table, head, column));
    });
  }

  function sort(table, head, column) {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    table.querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const [body] = table.tBodies;
    const value = (row) => {
      const cell = row.cells[column];
      return cell.dataset.sort ?? (cell.querySelector("summary") ?? cell).textContent;
    };
    const compare = (a, b) => order(value(a), value(b));
    body.append(...[...body.rows].sort((a, b) => (ascending ? compare(a, b) : compare(b, a))));
  }

  function order(a, b) {
    const numbers = [Number(a), Number(b)];
    if (!numbers.some(Number.isNaN)) return numbers[0] - numbers[1];
    return a.localeCompare(b, "en", { numeric: true });
  }

  /** Show the results that have all the words in them. */
  function filter(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...find("results-table").tBodies[0].rows];
    for (const row of rows) {
      const content = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => content.includes(word));
    }
    const n = rows.filter((row) => !row.hidden).length;
    find("filter-said").textContent = words.length ? `${n} of ${rows.length} results` : "";
  }

  return { start };
})();
