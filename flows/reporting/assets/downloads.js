"use strict";
/* What can be taken away: the numbers as CSV, the picture as PNG, the command that makes them. */

report.downloads = (() => {
  const { element, find } = report.dom;
  const PICTURE_WIDTH = 900;

  /** Save something under a name. */
  function save(name, href) {
    const link = element("a", { href, download: name });
    document.body.append(link);
    link.click();
    link.remove();
  }

  /** Return a block as CSV, a line a cell, with all digits; what is not defined is empty. */
  function csv({ block, numbers }) {
    const { valueAt, errorAt } = report.heatmap;
    const rows = layersOf(block.rows);
    const columns = layersOf(block.columns);
    const lines = [`row,column,${quoted(block.result.measure.toLowerCase())},standard_error,minibatches`];
    rows.forEach((row, i) => {
      columns.forEach((column, j) => {
        const numbersOf = [valueAt(block, numbers, i, j), errorAt(block, numbers, i, j)];
        const cells = [...numbersOf, numbers.n_minibatches];
        const texts = cells.map((n) => (n === null ? "" : String(n)));
        lines.push([quoted(row), quoted(column), ...texts].join(","));
      });
    });
    return `${lines.join("\r\n")}\r\n`;
  }

  function layersOf(side) {
    return side.groups.flatMap((group) => group.taps.map((tap) => `${group.network}:${tap}`));
  }

  /** Return a name as a cell of CSV: names of layers may have commas and quotes. */
  function quoted(name) {
    return /[",]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;
  }

  function saveCsv(shown) {
    const url = URL.createObjectURL(new Blob([csv(shown)], { type: "text/csv" }));
    save(`${nameOf(shown.block)}.csv`, url);
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  /**
   * Return a chart out of sight, of a size, light whatever the page is now. There is one, kept for the
   * next picture: the library fails where a chart is taken away that it has a frame of still to draw.
   */
  const paper = (() => {
    let chart = null;
    return (width, height) => {
      if (chart === null) {
        const host = element("div", { class: "paper" });
        Object.assign(host.style, { position: "absolute", left: "-9999px" });
        document.body.append(host);
        chart = echarts.init(host, null, { renderer: "canvas", width, height });
      } else {
        chart.resize({ width, height });
      }
      return chart;
    };
  })();

  /** Save a block as a picture of its own, with its title in it, however narrow the page is. */
  function savePng({ block, numbers }, title, method) {
    const size = report.layout.measure(block, PICTURE_WIDTH, 720);
    size.top += 52;
    const chart = paper(PICTURE_WIDTH, size.total + 52);
    const colours = report.colours.page(chart.getDom());
    const texts = {
      textStyle: { color: colours.text, fontSize: 15, width: 860, overflow: "truncate" },
    };
    const subtexts = { subtext: method, subtextStyle: { color: colours.quiet } };
    const option = report.heatmap.option(block, numbers, size, colours);
    chart.setOption({ ...option, title: { text: title, ...texts, ...subtexts } }, true);
    const url = chart.getDataURL({ type: "png", pixelRatio: 2, backgroundColor: colours.panel });
    save(`${nameOf(block)}.png`, url);
  }

  function nameOf({ result, rows, columns }) {
    const one = rows.groups.length === 1 && columns.groups.length === 1;
    if (!one) return result.name;
    const sides = [rows, columns].map(({ groups: [group] }) => `${group.run}_${group.checkpoint}`);
    return [...new Set(sides), result.name.slice(-8)].join("-");
  }

  /** Copy a text; where the browser forbids that, select it. */
  async function copy(source, status) {
    try {
      await navigator.clipboard.writeText(source.textContent);
      status.textContent = "Copied.";
    } catch {
      window.getSelection().selectAllChildren(source);
      status.textContent = "Selected: copy it with Ctrl+C.";
    }
  }

  /** Make the buttons work; ``current`` returns what is shown. */
  function connect(current) {
    find("get-csv").addEventListener("click", () => current() && saveCsv(current()));
    find("get-png").addEventListener("click", () => {
      const texts = ["shown-title", "shown-method"].map((id) => find(id).textContent);
      if (current()) savePng(current(), ...texts);
    });
    find("copy-command").addEventListener("click", () => copy(find("command"), find("copied")));
  }

  return { connect };
})();
