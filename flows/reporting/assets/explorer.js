"use strict";
/* The explorer of matrices: what is chosen, what of it is stored, and everything that shows it. */

report.explorer = (() => {
  const { find, table, number, fillSelect, element } = report.dom;
  const { results } = report.facts;
  const SELECTS = ["rows", "columns", "measure", "kernel", "estimator", "set", "label", "pool"];
  const MOST_LISTED = 40_000;
  let view = {};
  let shown = null;
  let chosen = null;
  let turn = 0;
  let parts = null;

  /** Bring the explorer to life, and show what the address asks for. */
  function start() {
    find("explorer").hidden = false;
    parts = {
      chart: echarts.init(find("heat").querySelector(".chart"), null, { renderer: "canvas" }),
      pointer: report.pointer.follow(chooseCell),
      rows: report.slider.make(find("slider-rows"), (at) => change({ "rows-at": at })),
      columns: report.slider.make(find("slider-columns"), (at) => change({ "columns-at": at })),
    };
    connect();
    return show(report.hash.read() ?? report.blocks.opening());
  }

  function connect() {
    for (const name of SELECTS) {
      find(`choose-${name}`).addEventListener("change", (event) =>
        pick({ [name]: event.target.value, from: "" }),
      );
    }
    find("choose-from").addEventListener("change", (event) => pick({ from: event.target.value }));
    find("together").addEventListener("change", (event) =>
      pick({ together: event.target.checked ? "1" : "" }),
    );
    find("whole").addEventListener("change", (event) => pick({ matrix: event.target.value }));
    for (const radio of find("controls").elements.mode) {
      radio.addEventListener("change", () =>
        pick({ matrix: radio.value === "whole" ? currentName() : "" }),
      );
    }
    find("controls").addEventListener("submit", (event) => event.preventDefault());
    find("numbers").addEventListener("toggle", listNumbers);
    find("all-digits").addEventListener("change", listNumbers);
    report.downloads.connect(() => shown);
    report.hash.onChange((wanted) => {
      stopPlaying();
      show(wanted);
    });
    // Also where the address stays as it is, as that result is shown already.
    find("results-table").addEventListener("click", (event) => event.target.closest("a") && goTo());
    report.colours.onChange(redraw);
    let width = find("heat").clientWidth;
    new ResizeObserver(() => {
      if (find("heat").clientWidth === width) return;
      width = find("heat").clientWidth;
      redraw();
    }).observe(find("heat"));
  }

  /** Bring the matrix into view, and go on there by keyboard. */
  function goTo() {
    find("matrices").scrollIntoView();
    find("heat").focus({ preventScroll: true });
  }

  const currentName = () => shown?.block.result.name ?? results[0].name;

  function stopPlaying() {
    parts.rows.stop();
    parts.columns.stop();
  }

  /** Change what is wanted, as somebody chose it. */
  function pick(changes) {
    stopPlaying();
    return change(changes);
  }

  function change(changes) {
    return show({ ...view, ...changes });
  }

  /** Show what is wanted, or what is stored that is nearest to it; resolves once it is drawn. */
  async function show(wanted) {
    const mine = (turn += 1);
    const result = results.find((each) => each.name === wanted.matrix);
    const { block, ...found } = result
      ? { block: report.blocks.whole(result), chosen: { ...wanted } }
      : report.blocks.choose({ ...wanted, matrix: "" });
    view = found.chosen;
    fillControls(result, found.options);
    report.hash.write(view);
    find("heat").setAttribute("aria-busy", "true");
    const numbers = await report.numbers.load(block.result.name).catch((error) => error);
    if (mine !== turn) return; // something else is wanted by now
    find("heat").removeAttribute("aria-busy");
    if (numbers instanceof Error) fail(numbers.message);
    else draw({ block, numbers });
  }

  function draw(what) {
    shown = what;
    describe();
    redraw();
    listNumbers();
    showLayers();
    warn(report.layers.provenance(shown));
  }

  /** Show nothing, lest the numbers of another matrix are taken for those that are missing. */
  function fail(reason) {
    shown = null;
    parts.chart.clear();
    parts.pointer.show(null);
    find("shown-title").textContent = find("shown-method").textContent = "";
    for (const id of ["numbers-body", "provenance-body", "command"]) find(id).replaceChildren();
    report.layers.clear();
    say(reason);
  }

  function redraw() {
    if (!shown) return;
    const host = find("heat");
    shown.size = report.heatmap.draw(
      parts.chart,
      host.querySelector(".chart"),
      shown.block,
      shown.numbers,
    );
    parts.pointer.show(shown);
  }

  function fillControls(result, options) {
    for (const radio of find("controls").elements.mode)
      radio.checked = (radio.value === "whole") === Boolean(result);
    find("whole-fields").hidden = !result;
    find("pair-fields").hidden = find("sliders").hidden = Boolean(result);
    if (result) {
      const names = results.map((each) => each.name);
      fillSelect(find("whole"), names, result.name, nameOfResult);
      return;
    }
    for (const name of SELECTS)
      fillSelect(find(`choose-${name}`), options[name], view[name], namesOf[name]);
    find("from-field").hidden = options.from.length < 2;
    fillSelect(find("choose-from"), options.from, view.from || options.from[0], nameOfResult);
    parts.rows.fill(options["rows-at"], view["rows-at"]);
    parts.columns.fill(options["columns-at"], view["columns-at"]);
    find("together").checked = Boolean(view.together);
  }

  const namesOf = {
    label: (label) => (label === "" ? "all classes" : report.known.className(view.rows, label)),
    pool: (pool) => (pool === "mean" ? "mean over space" : pool),
  };

  function nameOfResult(name) {
    const result = results.find((each) => each.name === name);
    const old = result.outdated.length ? " (outdated)" : "";
    return `${result.title}: ${result.method}, ${result.created_at}${old}`;
  }

  function describe() {
    const { result, rows, columns } = shown.block;
    const [first, second] = [rows, columns].map((side) =>
      side.groups.length === 1 ? side.groups[0].network : null,
    );
    const one = first && second;
    find("shown-title").textContent = !one
      ? result.title
      : first === second
        ? first
        : `${first} with ${second}`;
    find("shown-method").textContent = result.method;
    const label = `${result.measure} of ${find("shown-title").textContent}, ${result.method}, ${rows.length} by ${columns.length}`;
    find("heat").setAttribute("aria-label", label);
    find("heat-said").textContent = "\u00a0";
    find("copied").textContent = "";
  }

  function warn(changed) {
    say(changed.length ? `Outdated: ${changed.slice(0, 4).join(", ")} trained again since.` : "");
  }

  function say(text) {
    find("shown-warning").textContent = text;
    find("shown-warning").hidden = text === "";
  }

  function chooseCell(cell) {
    chosen = cell;
    showLayers();
    const aside = find("cell");
    // Where it stands below the matrix, nobody would see that it changed.
    if (aside.getBoundingClientRect().top > window.innerHeight)
      aside.scrollIntoView({ block: "nearest" });
  }

  /** Show the layers of the chosen cell, which stays chosen from one matrix to the next. */
  function showLayers() {
    const { rows, columns } = shown.block;
    if (!chosen || chosen[0] >= rows.length || chosen[1] >= columns.length) {
      report.layers.clear();
      return;
    }
    const several = rows.groups.length > 1 || columns.groups.length > 1;
    report.layers.show(shown, chosen, several ? showAlone : null);
  }

  /** Show the two networks of a cell by themselves, in the same way. */
  function showAlone(layers) {
    const { result } = shown.block;
    const same = Object.fromEntries(
      ["set", "measure", "kernel", "estimator", "pool", "label"].map((name) => [name, result[name]]),
    );
    const [rows, columns] = layers.map(({ group }) => group);
    const at = { "rows-at": rows.checkpoint, "columns-at": columns.checkpoint, from: result.name };
    pick({ ...same, rows: rows.run, columns: columns.run, ...at, matrix: "", together: "" });
  }

  /** Fill the table of numbers, where it is open: the first layer last, as in the picture. */
  function listNumbers() {
    if (!shown || !find("numbers").open) return;
    const { block, numbers } = shown;
    const [nRows, nColumns] = [block.rows.length, block.columns.length];
    if (nRows * nColumns > MOST_LISTED) {
      find("numbers-body").replaceChildren(
        element("p", {}, `${nRows} × ${nColumns} numbers: download them as CSV.`),
      );
      return;
    }
    const name = (side) => (index) => report.blocks.layer(side, index).name;
    const cells = (i) =>
      Array.from({ length: nColumns }, (_, j) =>
        digits(report.heatmap.valueAt(block, numbers, i, j)),
      );
    const rows = Array.from({ length: nRows }, (_, i) => [
      name(block.rows)(i),
      ...cells(i),
    ]).reverse();
    const head = ["layer", ...Array.from({ length: nColumns }, (_, j) => name(block.columns)(j))];
    find("numbers-body").replaceChildren(
      table(head, rows, find("heat").getAttribute("aria-label")),
    );
  }

  function digits(value) {
    if (value === null || !find("all-digits").checked) return number(value);
    return element("data", { value: String(value) }, String(value));
  }

  return { start };
})();
