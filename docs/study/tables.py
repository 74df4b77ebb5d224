"""Write tables.md: the numbers of docs/study.md, from the study's workspace.

Run by run.sh: python docs/study/tables.py WORKSPACE
"""

import sys
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from allcnn.compare.catalogue import Catalogue
from allcnn.compare.identification import identify_layers
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.similarity.kernels import Rbf
from allcnn.similarity.layer_identification import identify
from allcnn.similarity.method import Method
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_listing import Run, list_runs
from flows.figures.networks import TABLE_2
from store import SimilarityResult, list_probes, read_probe

TINY = "allcnn-tiny-10-s*"
FINALS = f"{TINY}@final"
OVER_TRAINING = "allcnn-tiny-10-s[01256]@*"


def stored(workspace: Workspace, pattern: str, **how: Any) -> list[SimilarityResult]:
    """Return the results that compare what fits a pattern with itself, one a bandwidth."""
    side = Selection.parse(pattern)
    found = Catalogue(workspace).results(Comparison(side, side, **how))
    if found is None:
        raise SystemExit(
            f"{pattern} is not compared in this way yet: run docs/study/run.sh compare"
        )
    return found


def blocks(result: SimilarityResult) -> dict[tuple[str, str, str, str], np.ndarray]:
    """Return CKA by run and checkpoint of the rows and of the columns."""
    networks = [(key.run, key.checkpoint) for key in result.rows]
    places = {each: [k for k, one in enumerate(networks) if one == each] for each in networks}
    return {(*a, *b): result.values[np.ix_(places[a], places[b])] for a in places for b in places}


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def trained(workspace: Workspace) -> str:
    """Return how every network was trained, and how well it does."""
    rows = []
    for run in list_runs(workspace):
        assert isinstance(run, Run)
        config = run_record.read_record(workspace, run.run).config
        last = run_record.read_history(workspace, run.run)
        minutes = sum(epoch.wall_s for epoch in last) / 60
        accuracy = f"{100 * last[-1].test_accuracy:.1f} %"
        rows.append(
            (run.run, f"{config.to_json()['width']:g}", run.epochs, f"{minutes:.0f}", accuracy)
        )
    return table(("run", "width", "epochs", "minutes", "test accuracy"), rows)


def identified(workspace: Workspace) -> str:
    """Return how often the corresponding layer was the most similar one."""
    bandwidths = tuple(Method(kernel=Rbf(sigma)) for sigma in (0.2, 0.4, 0.8))
    results = stored(workspace, FINALS) + stored(workspace, FINALS, methods=bandwidths)
    rows = []
    for way, found in identify_layers(results, ()).items():
        percent = [f"{100 * share:.0f}" for share in found.per_layer.values()]
        rows.append((way, f"{100 * found.accuracy:.1f}", f"{100 * TABLE_2[way]:.1f}", *percent))
        layers = list(found.per_layer)
    return table(("measure", "found (%)", "published (%)", *layers), sorted(rows))


def over_training(workspace: Workspace) -> str:
    """Return when a layer becomes like itself at the end, and like that of other seeds."""
    (result,) = stored(workspace, OVER_TRAINING)
    taps = list(dict.fromkeys(key.tap for key in result.rows))
    runs = list(dict.fromkeys(key.run for key in result.rows))
    checkpoints = list(dict.fromkeys(key.checkpoint for key in result.rows))
    block = blocks(result)
    rows = []
    for checkpoint in checkpoints:
        own = np.mean([block[r, checkpoint, r, "final"].diagonal() for r in runs], axis=0)
        pairs = [block[a, checkpoint, b, checkpoint] for a, b in permutations(runs, 2)]
        others = np.mean([pair.diagonal() for pair in pairs], axis=0)
        there = [k for k, key in enumerate(result.rows) if key.checkpoint == checkpoint]
        names = [result.rows[k].run for k in there]
        share = identify(result.values[np.ix_(there, there)], names, len(runs) * taps).accuracy
        numbers = (own.mean(), own.min(), others.mean(), others.min())
        rows.append((checkpoint, *(f"{x:.3f}" for x in numbers), f"{100 * share:.1f}"))
    head = ("checkpoint", "with itself at the end", "least tap", "with other seeds", "least tap")
    return table((*head, "layers identified (%)"), rows)


def between_seeds(workspace: Workspace) -> str:
    """Return how alike corresponding layers of two seeds are, tap by tap."""
    (result,) = stored(workspace, FINALS)
    taps = list(dict.fromkeys(key.tap for key in result.rows))
    runs = list(dict.fromkeys(key.run for key in result.rows))
    block = blocks(result)
    pairs = [block[a, "final", b, "final"] for a, b in permutations(runs, 2)]
    diagonals = np.array([pair.diagonal() for pair in pairs])
    rows = [
        (tap, f"{mean:.3f}", f"{spread:.3f}", f"{least:.3f}")
        for tap, mean, spread, least in zip(
            taps, diagonals.mean(0), diagonals.std(0), diagonals.min(0), strict=True
        )
    ]
    return table(("tap", "mean CKA of two seeds", "standard deviation", "least pair"), rows)


def by_class(workspace: Workspace) -> str:
    """Return how alike two seeds are on the examples of each class, and the mean over classes."""
    names = run_record.read_record(workspace, TINY.replace("*", "0")).class_names
    rows, means = [], []
    for label in (None, *range(len(names))):
        (result,) = stored(workspace, FINALS, label=label)
        runs = list(dict.fromkeys(key.run for key in result.rows))
        block = blocks(result)
        pairs = [block[a, "final", b, "final"] for a, b in permutations(runs, 2)]
        means.append(np.mean(pairs, axis=0))
        same, apart = means[-1].diagonal(), means[-1][~np.eye(len(means[-1]), dtype=bool)]
        name = "all" if label is None else names[label]
        rows.append((name, f"{same.mean():.3f}", f"{same.min():.3f}", f"{apart.mean():.3f}"))
    whole, *single = means
    mean = np.mean(single, axis=0)
    same, apart = mean.diagonal(), mean[~np.eye(len(mean), dtype=bool)]
    rows.append(
        ("mean of classes", f"{same.mean():.3f}", f"{same.min():.3f}", f"{apart.mean():.3f}")
    )
    correlation = np.corrcoef(whole.ravel(), mean.ravel())[0, 1]
    head = ("class", "same layer of two seeds", "least layer", "other layers")
    return table(head, rows) + (
        "\nThe matrix averaged over classes and that over all examples correlate at"
        f" {correlation:.3f}.\n"
    )


def probed(workspace: Workspace) -> str:
    """Return how accurate linear probes on the taps of the networks of each depth are."""
    probes = [read_probe(workspace.probes, name) for name in list_probes(workspace.probes)]
    rows = []
    for probe in sorted(probes, key=lambda probe: len(probe.taps)):
        taps, percent = [key.tap for key in probe.taps], 100 * probe.accuracy
        best = int(np.argmax(percent))
        last = [k for k, tap in enumerate(taps) if tap.startswith("conv")][-1]
        chosen = (0, best, last, len(taps) - 1)
        shown = [
            f"{taps[k]} {percent[k]:.1f} ± {100 * probe.standard_errors[k]:.1f}" for k in chosen
        ]
        rows.append((probe.taps[0].run, len(taps), *shown))
    return table(
        ("network", "taps", "first (%)", "best (%)", "last convolution (%)", "end (%)"), rows
    )


def main() -> None:
    """Write all tables beside this file."""
    workspace = Workspace.at(sys.argv[1])
    parts = {
        "Networks": trained,
        "Layers identified among ten seeds of Tiny-10": identified,
        "Ten seeds of Tiny-10, tap by tap": between_seeds,
        "Five seeds of Tiny-10 over training": over_training,
        "Linear probes": probed,
        "Ten seeds of Tiny-10 on single classes": by_class,
    }
    text = "\n".join(f"## {title}\n\n{part(workspace)}" for title, part in parts.items())
    Path(__file__).with_name("tables.md").write_text(f"# Tables of the study\n\n{text}", "utf-8")


if __name__ == "__main__":
    main()
