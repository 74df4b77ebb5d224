"use strict";
/* Elements, made without HTML text: names from elsewhere stay names. */

report.dom = (() => {
  const find = (id) => document.getElementById(id);

  /** Make an element; children are elements or texts. */
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) made.setAttribute(name, "");
      else if (value !== false && value !== null) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  /** Make a list of named facts, without those that are not known. */
  function facts(pairs) {
    const list = element("dl");
    for (const [name, value] of pairs) {
      if (value === null || value === undefined || value === "") continue;
      list.append(element("dt", {}, name), element("dd", {}, value));
    }
    return list;
  }

  /** Make a number that is shown short, and has all its digits as its value. */
  function number(value, short = 4) {
    if (value === null || value === undefined) return element("span", {}, "–");
    return element("data", { value: String(value) }, value.toFixed(short));
  }

  /** Make a table; the first cell of each row names it. */
  function table(head, rows, caption) {
    const names = head.map((name, at) =>
      element("th", { scope: "col", class: at ? "number" : "" }, name),
    );
    const body = rows.map(([first, ...cells]) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, first),
        ...cells.map((cell) => element("td", { class: "number" }, cell)),
      ),
    );
    return element(
      "table",
      {},
      element("caption", { class: "hidden" }, caption),
      element("thead", {}, element("tr", {}, ...names)),
      element("tbody", {}, ...body),
    );
  }

  /** Fill a select, and choose one of its options. */
  function fillSelect(select, options, chosen, name = (value) => value) {
    const made = options.map((value) => element("option", { value }, name(value)));
    select.replaceChildren(...made);
    select.value = chosen;
    select.disabled = options.length < 2;
  }

  /** Make a part that scrolls by itself, by keyboard too. */
  function scroller(label, ...children) {
    return element(
      "div",
      { class: "scroll tall", role: "region", "aria-label": label, tabindex: "0" },
      ...children,
    );
  }

  return { find, element, facts, number, table, fillSelect, scroller };
})();
