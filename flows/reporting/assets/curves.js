"use strict";
/* Learning curves: loss and accuracy over the epochs, train dashed, test solid. */

report.curves = (() => {
  const { find, number, table } = report.dom;
  const PARTS = [
    { part: "train", type: "dashed" },
    { part: "test", type: "solid" },
  ];

  /** Show the curves of the runs that have any. */
  function start() {
    const runs = report.facts.runs.filter((run) => run.curves.epoch.length);
    if (!runs.length) return;
    report.lines.make(find("curves-body"), {
      items: runs.map((run) => ({ label: run.run, curves: run.curves })),
      legend: "Runs (dashed: train, solid: test)",
      chartClass: "double",
      label: "Loss and accuracy over the epochs",
      option,
      list,
    });
  }

  function option(drawn, colours) {
    const { axis, tooltip } = report.lines;
    const grids = [
      { top: 12, height: "38%" },
      { bottom: 46, height: "38%" },
    ];
    return {
      animation: false,
      grid: grids.map((grid) => ({ left: 58, right: 16, ...grid })),
      xAxis: [0, 1].map((gridIndex) =>
        axis(gridIndex ? "epoch" : "", colours, {
          gridIndex,
          minInterval: 1,
          min: "dataMin",
          max: "dataMax",
          splitLine: { show: false },
        }),
      ),
      yAxis: ["loss", "accuracy"].map((name, gridIndex) =>
        axis(name, colours, { gridIndex, scale: true, nameGap: 42 }),
      ),
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      tooltip: tooltip("axis", describe, colours),
      series: drawn.flatMap(({ item, colour }) =>
        ["loss", "accuracy"].flatMap((what, at) => lines(item, colour, what, at)),
      ),
    };
  }

  function lines({ label, curves }, colour, what, at) {
    const single = curves.epoch.length === 1;
    return PARTS.map(({ part, type }) => ({
      type: "line",
      name: `${label}, ${part} ${what}`,
      xAxisIndex: at,
      yAxisIndex: at,
      showSymbol: single,
      symbol: "circle",
      lineStyle: { color: colour, type, width: 2 },
      itemStyle: { color: colour },
      data: curves.epoch.map((epoch, i) => [epoch, curves[`${part}_${what}`][i]]),
    }));
  }

  function describe(params) {
    const told = params.map(({ seriesName, value, color }) => {
      const shown = value[1] === null ? "not defined" : value[1].toPrecision(4);
      return [`${seriesName} ${shown}`, color];
    });
    return [[`epoch ${params[0].value[0]}`], ...told];
  }

  function list(items) {
    const rows = items.flatMap(({ label, curves }) =>
      curves.epoch.map((epoch, i) => [
        label,
        String(epoch),
        ...["train_loss", "test_loss", "train_accuracy", "test_accuracy"].map((name) =>
          number(curves[name][i]),
        ),
      ]),
    );
    const head = ["run", "epoch", "train loss", "test loss", "train accuracy", "test accuracy"];
    return table(head, rows, "Learning curves");
  }

  return { start };
})();
