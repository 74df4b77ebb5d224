"use strict";
/* Probes: how well a linear classifier does on each layer, with standard errors. */

report.probes = (() => {
  const { find, number, table } = report.dom;

  /** Show the probes, if there are any. */
  function start() {
    const { probes } = report.facts;
    if (!probes.length) return;
    report.lines.make(find("probes-body"), {
      items: probes.map((probe) => ({ label: labelOf(probe), probe })),
      legend: "Networks",
      chartClass: "",
      label: "Accuracy of linear probes by layer",
      option,
      list,
    });
  }

  /** Return the place of each layer in its network; of one that is not here, among those probed. */
  function placesOf({ network, taps }) {
    const all = report.known.runOf.get(network.split("@")[0])?.taps ?? [];
    const known = taps.every((tap) => all.includes(tap));
    return taps.map((tap, i) => (known ? all.indexOf(tap) : i) + 1);
  }

  function labelOf(probe) {
    const alone = report.facts.probes.filter((each) => each.network === probe.network).length === 1;
    const label = alone ? probe.network : `${probe.network} (${probe.name})`;
    return probe.outdated ? `${label}, outdated: trained again since` : label;
  }

  function option(drawn, colours) {
    const { axis, tooltip } = report.lines;
    return {
      animation: false,
      grid: { left: 62, right: 16, top: 14, bottom: 48 },
      xAxis: axis("layer", colours, {
        minInterval: 1,
        min: 1,
        max: "dataMax",
        splitLine: { show: false },
      }),
      yAxis: axis("accuracy", colours, {
        ...range(drawn),
        nameGap: 46,
        axisLabel: { color: colours.quiet, formatter: percentAxis },
      }),
      tooltip: tooltip("item", (params) => describe(drawn, params), colours),
      series: drawn.flatMap(({ item, colour }) => [line(item, colour), errors(item, colour)]),
    };
  }

  /** Return whole percents around all accuracies with their errors. */
  function range(drawn) {
    const ends = drawn.flatMap(({ item: { probe } }) =>
      probe.accuracy.flatMap((share, i) => {
        const error = probe.standard_errors[i] ?? 0;
        return share === null ? [] : [share - error, share + error];
      }),
    );
    if (!ends.length) return { min: 0, max: 1 };
    const [low, high] = [Math.min(...ends), Math.max(...ends)];
    return { min: Math.floor(100 * low) / 100, max: Math.ceil(100 * high) / 100 };
  }

  const percentAxis = (share) => `${Math.round(share * 1000) / 10} %`;

  function line({ label, probe }, colour) {
    const places = placesOf(probe);
    return {
      type: "line",
      name: label,
      symbol: "circle",
      symbolSize: 6,
      lineStyle: { color: colour, width: 2 },
      itemStyle: { color: colour },
      data: probe.accuracy.map((share, i) => [places[i], share]),
    };
  }

  /** Draw one standard error up and down from each point. */
  function errors({ label, probe }, colour) {
    const places = placesOf(probe);
    const data = probe.accuracy.map((share, i) => [places[i], share, probe.standard_errors[i]]);
    return {
      type: "custom",
      name: label,
      silent: true,
      data: data.filter(([, share, error]) => share !== null && error !== null),
      encode: { x: 0, y: 1 },
      renderItem: (_, api) => {
        const [x, share, error] = [0, 1, 2].map((dimension) => api.value(dimension));
        const [[at, low], [, high]] = [share - error, share + error].map((y) => api.coord([x, y]));
        const style = { stroke: colour, lineWidth: 1.2, fill: "none" };
        const bar = (x1, y1, x2, y2) => ({ type: "line", shape: { x1, y1, x2, y2 }, style });
        const half = Math.min(3, api.size([1, 0])[0] / 4);
        const ends = [low, high].map((y) => bar(at - half, y, at + half, y));
        return { type: "group", children: [bar(at, low, at, high), ...ends] };
      },
    };
  }

  function describe(drawn, [{ seriesName, dataIndex, color }]) {
    const { item } = drawn.find((each) => each.item.label === seriesName);
    const { probe } = item;
    return [
      [seriesName, color],
      [`layer ${placesOf(probe)[dataIndex]}: ${probe.taps[dataIndex]}`],
      [
        `accuracy ${report.pointer.short(probe.accuracy[dataIndex], probe.standard_errors[dataIndex])}`,
      ],
      [`training accuracy ${report.layers.percent(probe.train_accuracy[dataIndex])}`],
    ];
  }

  function list(items) {
    const head = [
      "layer",
      "network",
      "accuracy",
      "standard error",
      "training accuracy",
      "l2 factor",
      "features",
      "training examples",
      "test examples",
      "trained on",
      "tested on",
      "pooling",
      "computed at",
      "by",
      "command",
    ];
    const rows = items.flatMap(({ probe }) =>
      probe.taps.map((tap, i) => [
        tap,
        probe.network,
        ...[probe.accuracy[i], probe.standard_errors[i], probe.train_accuracy[i]].map((n) =>
          number(n),
        ),
        penalty(probe.penalties[i]),
        ...[probe.n_features[i], probe.n_train, probe.n_test].map((n) => n.toLocaleString("en")),
        ...[probe.train_set, probe.set, probe.pool, probe.created_at, probe.versions, probe.command],
      ]),
    );
    return table(head, rows, "Accuracy of linear probes");
  }

  const penalty = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));

  return { start };
})();
