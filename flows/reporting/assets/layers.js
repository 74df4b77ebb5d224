"use strict";
/* What is known of the two layers of a cell, and of the numbers of a block. */

report.layers = (() => {
  const { find, element, facts, number } = report.dom;
  const known = report.known;

  /** Show both layers of a cell; ``alone`` shows their networks by themselves, where it is given. */
  function show(shown, cell, alone) {
    const { value, error, doubt, reason, layers } = report.pointer.at(shown, cell);
    const { block, numbers } = shown;
    const [first, second] = block.turned ? ["columns", "rows"] : ["rows", "columns"];
    const body = [
      element("p", { class: "value" }, `${block.result.measure} ${report.pointer.short(value, error)}`),
      facts([
        [
          "exactly",
          value === null ? null : element("data", { value: String(value) }, String(value)),
        ],
        ["standard error", error === null ? numbers.errors_reason : String(error)],
        ["caution", doubt],
        ["not defined, as", reason],
      ]),
      element("h4", {}, `Row: ${layers[0].tap}`),
      layer(layers[0], shown, first),
      element("h4", {}, `Column: ${layers[1].tap}`),
      layer(layers[1], shown, second),
    ];
    if (alone) {
      const button = element("button", { type: "button" }, "Show these two networks alone");
      button.addEventListener("click", () => alone(layers));
      body.push(button);
    }
    find("cell-body").replaceChildren(...body);
  }

  /** Say that no cell is chosen. */
  function clear() {
    const text = element("p", { class: "quiet" }, "Choose a cell of the matrix.");
    find("cell-body").replaceChildren(text);
  }

  /** Return what is known of a layer; ``side`` is that of the stored matrix which it is on. */
  function layer({ group, tap, at }, { block, numbers }, side) {
    const bandwidths = numbers[`scales_${side}`];
    const { run, checkpoint, network } = group;
    const epochs = known.epochsOf(run, checkpoint);
    const accuracy = known.accuracyAt(run, checkpoint);
    return facts([
      ["network", network],
      ["layer", position(group, tap)],
      ["epochs seen", epochs === null ? null : String(epochs)],
      ["test accuracy", accuracy === null ? null : percent(accuracy)],
      ...known
        .probesOf(network, tap)
        .map(({ probe, at: i }) => [
          "probe accuracy",
          `${percent(probe.accuracy[i])}${error(probe.standard_errors[i])} (${named(probe)})`,
        ]),
      [`${block.result.sums} with itself`, numberOf(numbers[`sums_${side}`][at])],
      ["bandwidth", bandwidths ? numberOf(bandwidths[at]) : null],
    ]);
  }

  const named = ({ name, outdated }) => (outdated ? `${name}, outdated: trained again since` : name);
  const error = (value) => (value === null ? "" : ` ± ${(100 * value).toFixed(1)}`);
  const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(1)} %`);

  function numberOf(value) {
    if (value === null) return "not defined";
    return element("data", { value: String(value) }, value.toPrecision(5));
  }

  /** Say which layer of its network it is; of a network that is not here, of those compared. */
  function position(group, tap) {
    const all = known.runOf.get(group.run)?.taps ?? [];
    if (all.includes(tap)) return `${all.indexOf(tap) + 1} of ${all.length}`;
    return `${group.taps.indexOf(tap) + 1} of the ${group.taps.length} compared here`;
  }

  /** Show where the numbers of a block come from. */
  function provenance({ block, numbers }) {
    const { result, turned } = block;
    const command = turned ? result.exchanged_command : result.command;
    const groups = [...block.rows.groups, ...block.columns.groups];
    const shownNetworks = [...new Set(groups.map((group) => group.network))].slice(0, 8);
    const digests = shownNetworks
      .filter((network) => numbers.digests[network])
      .map((network) => [`digest of ${network}`, numbers.digests[network]]);
    const changed = result.outdated.filter((network) => groups.some((g) => g.network === network));
    find("provenance-body").replaceChildren(
      facts([
        ["result", result.name],
        ["shown", turned ? "with its rows and columns exchanged" : null],
        ["sample set", `${result.set}, ${result.n_examples.toLocaleString("en")} examples`],
        ["class", result.label === "" ? "all" : known.className(groups[0].run, result.label)],
        ["measure", result.measure],
        [
          "kernel",
          result.kernel +
            (result.pool === "mean" ? ", convolutional taps averaged over space" : ""),
        ],
        ["estimator", result.estimator],
        ["minibatches skipped", result.n_skipped ? String(result.n_skipped) : null],
        ["computed at", result.created_at || "not known"],
        ["by", result.versions],
        ["from", sources(result.sources)],
        [
          "outdated",
          changed.length ? `${changed.slice(0, 4).join(", ")}: trained again since` : null,
        ],
        ...digests,
        ["standard errors", numbers.errors_reason],
        ["caution", numbers.errors_caution],
      ]),
    );
    find("command").textContent = command || "not known: an earlier version computed it";
    find("copy-command").hidden = !command;
    return changed;
  }

  function sources([computed, kept]) {
    const told = [];
    if (computed) told.push(`activations of ${computed} representations`);
    if (kept) told.push(`kept Grams of ${kept} representations`);
    return told.join(" and ");
  }

  return { show, clear, provenance, percent };
})();
