"use strict";
/* Which pair of networks is stored in which result: looked up one choice after the other. */

report.blocks = (() => {
  const { networks, taps, sides, results } = report.facts;
  const FACETS = ["set", "measure", "kernel", "estimator", "pool", "label"];
  const PREFERRED = report.facts.preferred;
  const axes = new Map();
  const views = results.flatMap(viewsOf).sort((a, b) => a.turned - b.turned);

  /** Return a result as it is stored and, where its sides differ, with these exchanged. */
  function viewsOf(result) {
    const { rows, columns } = result;
    const stored = { result, rows, columns, turned: false };
    if (rows === columns) return [stored];
    return [stored, { result, rows: columns, columns: rows, turned: true }];
  }

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

  const rowsOf = (view) => axis(view.rows);
  const columnsOf = (view) => axis(view.columns);

  /** Choose a block that is stored, as near to what is wanted as there is one.

      Each choice leaves some results, as stored or with their sides exchanged; the next one is
      among what these have. Returns what was chosen, the options of each choice, and the block. */
  function choose(wanted) {
    const chosen = {};
    const options = {};
    let left = views;
    const narrow = (name, valuesOf, fallback, order) => {
      options[name] = [...new Set(left.flatMap(valuesOf))].sort(order);
      const found = options[name].includes(wanted[name]);
      chosen[name] = found ? wanted[name] : fallback(options[name]);
      left = left.filter((view) => valuesOf(view).includes(chosen[name]));
    };
    const first = (valuesOf) => () => valuesOf(left[0])[0];
    const runs = (axisOf) => (view) => [...axisOf(view).byRun.keys()];
    const other = first(runs(columnsOf));
    narrow("rows", runs(rowsOf), first(runs(rowsOf)), natural);
    narrow("columns", runs(columnsOf), among(chosen.rows, other), natural);
    for (const name of FACETS)
      narrow(name, ({ result }) => [result[name]], among(PREFERRED[name]), natural);
    const at = (axisOf, run) => (view) =>
      axisOf(view)
        .byRun.get(run)
        .map((g) => g.checkpoint);
    narrow("rows-at", at(rowsOf, chosen.rows), last, byEpoch);
    chosen.together = wanted.together === "1" ? "1" : "";
    if (chosen.together) wanted = { ...wanted, "columns-at": chosen["rows-at"] };
    narrow("columns-at", at(columnsOf, chosen.columns), last, byEpoch);
    left = asStored(left.map((view) => block(view, chosen)).sort(better));
    options.from = left.map((each) => each.result.name);
    const found = left.find((each) => each.result.name === wanted.from);
    chosen.from = found ? wanted.from : "";
    return { chosen, options, block: found ?? left[0] };
  }

  function among(preferred, fallback = (options) => options[0]) {
    return (options) => (options.includes(preferred) ? preferred : fallback(options));
  }

  const last = (options) => options[options.length - 1];

  function natural(a, b) {
    return a.localeCompare(b, "en", { numeric: true });
  }

  function byEpoch(a, b) {
    const [first, second] = [a, b].map(report.known.epochOrder);
    return first === second ? natural(a, b) : first - second;
  }

  function block(view, chosen) {
    const pick = (groups, at) => groups.find((group) => group.checkpoint === at);
    const row = pick(rowsOf(view).byRun.get(chosen.rows), chosen["rows-at"]);
    const column = pick(columnsOf(view).byRun.get(chosen.columns), chosen["columns-at"]);
    return { ...view, rows: part([row]), columns: part([column]) };
  }

  /** Leave exchanged ones out, unless all that is stored as it is shown is outdated. */
  function asStored(blocks) {
    const stored = blocks.filter(({ turned }) => !turned);
    if (stored.some(({ result }) => !result.outdated.length)) return stored;
    const names = stored.map(({ result }) => result.name);
    return blocks.filter(({ turned, result }) => !turned || !names.includes(result.name));
  }

  /** Put those first that are of today's networks, then those with more layers. */
  function better(a, b) {
    const outdated = Math.sign(a.result.outdated.length) - Math.sign(b.result.outdated.length);
    return outdated || b.rows.length * b.columns.length - a.rows.length * a.columns.length;
  }

  /** Return the view that the page opens with: that of the result which the facts name. */
  function opening() {
    const result = results.find((each) => each.name === report.facts.opens_on);
    const [rows, columns] = [result.rows, result.columns].map((side) => axis(side).groups);
    if (rows.length > 1 || columns.length > 1) return { matrix: result.name };
    const facets = Object.fromEntries(FACETS.map((name) => [name, result[name]]));
    const at = { "rows-at": rows[0].checkpoint, "columns-at": columns[0].checkpoint };
    return { rows: rows[0].run, columns: columns[0].run, ...facets, ...at, from: result.name };
  }

  /** Return a result as one block. */
  function whole(result) {
    const [view] = viewsOf(result);
    return { ...view, rows: part(rowsOf(view).groups), columns: part(columnsOf(view).groups) };
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

  return { choose, opening, whole, layer };
})();
