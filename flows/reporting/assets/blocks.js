"use strict";
/* Which pair of networks is stored in which result: looked up one choice after the other. */

report.blocks = (() => {
  const { networks, taps, sides, results } = report.facts;
  const FACETS = ["set", "kernel", "estimator", "pool", "label"];
  const PREFERRED = { kernel: "linear", pool: "whole", label: "" };
  const axes = new Map();

  /** Return what is along a side: its networks, and for each the number of its first tap. */
  function axis(side) {
    if (!axes.has(side)) axes.set(side, makeAxis(sides[side]));
    return axes.get(side);
  }

  function makeAxis(pairs) {
    let start = 0;
    const groups = pairs.map(([network, names]) => {
      const [run, checkpoint] = networks[network];
      const group = { run, checkpoint, network: `${run}@${checkpoint}`, taps: taps[names], start };
      start += group.taps.length;
      return group;
    });
    const byRun = new Map();
    for (const group of groups) {
      if (!byRun.has(group.run)) byRun.set(group.run, []);
      byRun.get(group.run).push(group);
    }
    return { groups, byRun, length: start };
  }

  const rowsOf = (result) => axis(result.rows);
  const columnsOf = (result) => axis(result.columns);

  /** Choose a block that is stored, as near to what is wanted as there is one.

      Each choice leaves some results; the next one is among what these have. Returns what was
      chosen, the options of each choice, and the block. */
  function choose(wanted) {
    const chosen = {};
    const options = {};
    let left = results;
    const narrow = (name, valuesOf, fallback, order) => {
      options[name] = [...new Set(left.flatMap(valuesOf))].sort(order);
      const found = options[name].includes(wanted[name]);
      chosen[name] = found ? wanted[name] : fallback(options[name]);
      left = left.filter((result) => valuesOf(result).includes(chosen[name]));
    };
    const first = (valuesOf) => () => valuesOf(left[0])[0];
    const runs = (axisOf) => (result) => [...axisOf(result).byRun.keys()];
    narrow("rows", runs(rowsOf), first(runs(rowsOf)), natural);
    narrow("columns", runs(columnsOf), among(chosen.rows), natural);
    for (const name of FACETS)
      narrow(name, (result) => [result[name]], among(PREFERRED[name]), natural);
    const at = (axisOf, run) => (result) =>
      axisOf(result)
        .byRun.get(run)
        .map((g) => g.checkpoint);
    narrow("rows-at", at(rowsOf, chosen.rows), last, byEpoch);
    chosen.together = wanted.together === "1" ? "1" : "";
    if (chosen.together) wanted = { ...wanted, "columns-at": chosen["rows-at"] };
    narrow("columns-at", at(columnsOf, chosen.columns), last, byEpoch);
    left = left.map((result) => block(result, chosen)).sort(better);
    options.from = left.map((each) => each.result.name);
    const found = left.find((each) => each.result.name === wanted.from);
    chosen.from = found ? wanted.from : "";
    return { chosen, options, block: found ?? left[0] };
  }

  function among(preferred) {
    return (options) => (options.includes(preferred) ? preferred : options[0]);
  }

  const last = (options) => options[options.length - 1];

  function natural(a, b) {
    return a.localeCompare(b, "en", { numeric: true });
  }

  function byEpoch(a, b) {
    const [first, second] = [a, b].map(report.known.epochOrder);
    return first === second ? natural(a, b) : first - second;
  }

  function block(result, chosen) {
    const pick = (groups, at) => groups.find((group) => group.checkpoint === at);
    const row = pick(rowsOf(result).byRun.get(chosen.rows), chosen["rows-at"]);
    const column = pick(columnsOf(result).byRun.get(chosen.columns), chosen["columns-at"]);
    return { result, rows: part([row]), columns: part([column]) };
  }

  /** Put those first that are of today's networks, then those with more layers. */
  function better(a, b) {
    const outdated = Math.sign(a.result.outdated.length) - Math.sign(b.result.outdated.length);
    return outdated || b.rows.length * b.columns.length - a.rows.length * a.columns.length;
  }

  /** Return a result as one block. */
  function whole(result) {
    return { result, rows: part(rowsOf(result).groups), columns: part(columnsOf(result).groups) };
  }

  /** Return consecutive networks of a side as the side of a block. */
  function part(groups) {
    const start = groups[0].start;
    const length = groups.reduce((sum, group) => sum + group.taps.length, 0);
    return { start, length, groups };
  }

  /** Return the layer at a place along the side of a block. */
  function layer(side, index) {
    const at = side.start + index;
    const group = side.groups.findLast((each) => each.start <= at);
    const tap = group.taps[at - group.start];
    const several = side.groups.length > 1;
    return { group, tap, at, name: several ? `${group.network}:${tap}` : tap };
  }

  return { choose, whole, layer };
})();
