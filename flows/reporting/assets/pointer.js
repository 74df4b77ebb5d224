"use strict";
/* The cell that is pointed at, by pointer or keyboard: marked, read out, and chosen. */

report.pointer = (() => {
  const { find, element } = report.dom;
  const STEPS = {
    ArrowUp: [1, 0],
    ArrowDown: [-1, 0],
    ArrowLeft: [0, -1],
    ArrowRight: [0, 1],
    PageUp: [Infinity, 0],
    PageDown: [-Infinity, 0],
    Home: [0, -Infinity],
    End: [0, Infinity],
  };

  /** Follow the pointer and the keys in a heat map; ``choose`` is called with a cell. */
  function follow(choose) {
    const host = find("heat");
    const cursor = host.querySelector(".cursor");
    const tip = host.querySelector(".tip");
    let shown = null;
    let cell = null;

    /** Take what is drawn now, if anything, and forget the cell where that has no such cell. */
    function show(drawn) {
      shown = drawn;
      const { rows, columns } = shown?.block ?? { rows: [], columns: [] };
      if (cell && !(cell[0] < rows.length && cell[1] < columns.length)) cell = null;
      if (cell && !tip.hidden) point(cell);
      else hide();
    }

    function hide() {
      cursor.hidden = true;
      tip.hidden = true;
    }

    function cellAt(event) {
      const { block, size } = shown;
      const box = host.getBoundingClientRect();
      const j = Math.floor((event.clientX - box.left - size.left) / size.cell);
      const i = Math.floor((size.top + size.height - (event.clientY - box.top)) / size.cell);
      const inside = i >= 0 && j >= 0 && i < block.rows.length && j < block.columns.length;
      return inside ? [i, j] : null;
    }

    function point(at) {
      cell = at;
      const { size } = shown;
      const [x, y] = [
        size.left + at[1] * size.cell,
        size.top + size.height - (at[0] + 1) * size.cell,
      ];
      const side = Math.max(size.cell, 3);
      Object.assign(cursor.style, {
        left: `${x}px`,
        top: `${y}px`,
        width: `${side}px`,
        height: `${side}px`,
      });
      cursor.hidden = false;
      tip.replaceChildren(...describe(shown, at));
      tip.hidden = false;
      place(tip, host, x, y, side);
    }

    host.addEventListener("pointermove", (event) => {
      const at = shown && event.pointerType !== "touch" ? cellAt(event) : null;
      if (at) point(at);
      else hide();
    });
    host.addEventListener("pointerleave", hide);
    host.addEventListener("blur", hide);
    host.addEventListener("focus", () => {
      if (shown && host.matches(":focus-visible")) move([0, 0]);
    });
    host.addEventListener("click", (event) => {
      const at = shown && cellAt(event);
      if (!at) return;
      point(at);
      choose(at);
    });
    host.addEventListener("keydown", (event) => {
      if (!shown || event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === "Escape") hide();
      else if ((event.key === "Enter" || event.key === " ") && cell) choose(cell);
      else if (event.key in STEPS) move(STEPS[event.key]);
      else return;
      event.preventDefault();
    });

    function move([up, right]) {
      const { block } = shown;
      const within = (value, length) => Math.min(Math.max(value, 0), length - 1);
      const [i, j] = cell ?? [0, 0];
      point([within(i + up, block.rows.length), within(j + right, block.columns.length)]);
      find("heat-said").textContent = said(shown, cell);
    }

    return { show };
  }

  /** Put a tip beside a cell, inside of what it is in. */
  function place(tip, host, x, y, side) {
    const right = x + side + 10;
    const fits = right + tip.offsetWidth <= host.clientWidth;
    const left = fits ? right : Math.max(0, x - tip.offsetWidth - 10);
    const covers = !fits && left + tip.offsetWidth > x;
    const top = covers ? y + side + 8 : y + side / 2 - tip.offsetHeight / 2;
    tip.style.left = `${Math.min(left, Math.max(0, host.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, top)}px`;
  }

  /** Return a value with its error in a few digits. */
  function short(value, error) {
    if (value === null) return "not defined";
    return error === null ? value.toFixed(4) : `${value.toFixed(4)} ± ${error.toPrecision(2)}`;
  }

  function at({ block, numbers }, [i, j]) {
    const { valueAt, errorAt, reasonAt } = report.heatmap;
    const layers = [report.blocks.layer(block.rows, i), report.blocks.layer(block.columns, j)];
    const value = valueAt(block, numbers, i, j);
    const reason = value === null ? reasonAt(block, numbers, i, j) : "";
    const error = errorAt(block, numbers, i, j);
    const doubt = error === null ? "" : numbers.errors_caution;
    return { value, error, doubt, reason, layers };
  }

  function describe(shown, cell) {
    const { value, error, doubt, reason, layers } = at(shown, cell);
    const lines = [element("p", {}, element("strong", {}, short(value, error)))];
    if (value !== null)
      lines.push(
        element("p", { class: "quiet" }, element("data", { value: String(value) }, String(value))),
      );
    if (doubt) lines.push(element("p", { class: "quiet" }, doubt));
    if (reason) lines.push(element("p", {}, reason));
    lines.push(element("p", {}, `row ${layers[0].group.network}:${layers[0].tap}`));
    lines.push(element("p", {}, `column ${layers[1].group.network}:${layers[1].tap}`));
    return lines;
  }

  function said(shown, cell) {
    const { value, error, doubt, reason, layers } = at(shown, cell);
    const named = `row ${layers[0].name}, column ${layers[1].name}`;
    return [`${named}: ${short(value, error)}`, doubt, reason].filter(Boolean).join(", ");
  }

  return { follow, short, at };
})();
