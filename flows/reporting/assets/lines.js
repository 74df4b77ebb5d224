"use strict";
/* A chart of lines, with a list of what is in it that can be chosen from by keyboard too. */

report.lines = (() => {
  const { element, scroller } = report.dom;
  const MOST_AT_FIRST = 6;

  /** Fill a section with a chart of some of its items, and a table of their numbers.

      ``option`` and ``list`` are called with the chosen items, each with its colour. */
  function make(body, { items, legend, chartClass, label, option, list }) {
    const host = element("div", { class: `chart ${chartClass}`, role: "img", "aria-label": label });
    const boxes = items.map((item, index) => choice(item, index < MOST_AT_FIRST));
    const named = element("legend", {}, legend);
    const listed = element("div", { class: "list" }, ...boxes.map((box) => box.label));
    const choices = element("fieldset", { class: "choices" }, named, listed);
    const numbers = element("details", {}, element("summary", {}, "The numbers as a table"));
    const place = element("div");
    numbers.append(place);
    body.replaceChildren(element("div", { class: "lines" }, host, choices), numbers);
    const chart = echarts.init(host, null, { renderer: "canvas" });

    function draw() {
      const chosen = boxes.filter((box) => box.input.checked);
      boxes.forEach((box) => (box.swatch.style.background = "transparent"));
      const drawn = chosen.map(({ item, swatch }, index) => {
        const colour = report.colours.line(index);
        swatch.style.background = colour;
        return { item, colour };
      });
      chart.setOption(option(drawn, report.colours.page()), { notMerge: true });
      if (numbers.open) place.replaceChildren(scroller(label, list(chosen.map((box) => box.item))));
    }

    choices.addEventListener("change", draw);
    numbers.addEventListener("toggle", draw);
    report.colours.onChange(draw);
    new ResizeObserver(() => chart.resize()).observe(host);
    draw();
  }

  function choice(item, checked) {
    const input = element("input", { type: "checkbox", checked });
    const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
    const label = element("label", {}, input, " ", swatch, item.label);
    return { item, input, swatch, label };
  }

  /** Return an axis in the page's colours. */
  function axis(name, colours, more = {}) {
    return {
      type: "value",
      name,
      nameLocation: "middle",
      nameGap: 32,
      nameTextStyle: { color: colours.text },
      axisLabel: { color: colours.quiet, hideOverlap: true },
      axisLine: { show: true, lineStyle: { color: colours.quiet } },
      splitLine: { lineStyle: { color: colours.line } },
      ...more,
    };
  }

  /** Return a tip in the page's colours; ``describe`` returns its lines, each with its colour. */
  function tooltip(trigger, describe, colours) {
    return {
      trigger,
      confine: true,
      transitionDuration: 0,
      backgroundColor: colours.panel,
      borderColor: colours.line,
      textStyle: { color: colours.text, fontSize: 12 },
      axisPointer: { type: "line", lineStyle: { color: colours.quiet } },
      formatter: (params) => lines(describe([params].flat())),
    };
  }

  /** Make elements of the lines of a tip, as the library would read a text as HTML. */
  function lines(described) {
    const made = described.map(([text, colour]) => {
      const swatch = element("span", { class: "swatch" });
      swatch.style.background = colour ?? "transparent";
      return element("p", {}, ...(colour ? [swatch] : []), text);
    });
    return element("div", { class: "chart-tip" }, ...made);
  }

  return { make, axis, tooltip };
})();
