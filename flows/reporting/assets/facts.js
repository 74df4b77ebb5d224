"use strict";
/* The facts that stand in the page, and what can be looked up in them. */

const report = {};

report.facts = JSON.parse(document.getElementById("facts").textContent);

report.known = (() => {
  const { runs, probes } = report.facts;
  const runOf = new Map(runs.map((run) => [run.run, run]));

  /** Order checkpoints as training writes them; names of other kinds come last, by name. */
  function epochOrder(checkpoint) {
    if (checkpoint === "init") return 0;
    const epoch = /^epoch-(\d+)$/.exec(checkpoint);
    if (epoch) return Number(epoch[1]);
    return checkpoint === "final" ? Number.MAX_SAFE_INTEGER : Infinity;
  }

  /** Return how many epochs a checkpoint has seen, or null where nothing tells. */
  function epochsOf(run, checkpoint) {
    const order = epochOrder(checkpoint);
    if (order < Number.MAX_SAFE_INTEGER) return order;
    return checkpoint === "final" ? (runOf.get(run)?.settings.epochs ?? null) : null;
  }

  /** Return the test accuracy of a run at a checkpoint, or null where its curves do not tell. */
  function accuracyAt(run, checkpoint) {
    const curves = runOf.get(run)?.curves;
    const at = curves ? curves.epoch.indexOf(epochsOf(run, checkpoint)) : -1;
    return at < 0 ? null : curves.test_accuracy[at];
  }

  /** Return what probes say of a tap of a network. */
  function probesOf(network, tap) {
    return probes
      .filter((probe) => probe.network === network && probe.taps.includes(tap))
      .map((probe) => ({ probe, at: probe.taps.indexOf(tap) }));
  }

  /** Return the name of a class of a run's data set, beside its number. */
  function className(run, label) {
    const name = runOf.get(run)?.class_names[Number(label)];
    return name === undefined || name === label ? `class ${label}` : `class ${label}: ${name}`;
  }

  return { runOf, epochOrder, epochsOf, accuracyAt, probesOf, className };
})();
