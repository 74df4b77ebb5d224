"""Workspaces with known numbers, as reports show them; nothing is trained."""

import json

import numpy as np

import store
from allcnn.definitions.fields import json_of
from allcnn.settings.comparison import Comparison
from allcnn.settings.probing import Probing
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.workspace import run_record
from allcnn.workspace.paths import WHOLE, Workspace
from store import ProbeResult, RepresentationKey, SimilarityResult
from tests.strategies import make_similarity

CHECKPOINTS = ("init", "epoch-0001", "epoch-0002", "final")
SET = "digits-test-64-0123abcd"
EVIL = "</script><script>alert(1)</script>\u2028'\"<b>"
"""A name that ends scripts and quotes wherever it is not escaped."""


def config(seed: int, **changes) -> RunConfig:
    return RunConfig.of(**{"epochs": 3, "image_size": 12, "prefix": "seen", "seed": seed} | changes)


def write_run(
    workspace: Workspace, config: RunConfig, names=CHECKPOINTS, class_names=("zero", EVIL, "two")
) -> run_record.RunRecord:
    """Write a run as training leaves it, but for its arrays."""
    entry = run_record.RunRecord(config, tuple(class_names), 1, "2026-01-31T12:00:00+00:00")
    run_record.write_record(workspace, entry)
    rng = np.random.default_rng(config.seed)
    curves = np.sort(rng.random((4, config.epochs)))
    rows = [
        run_record.Epoch(n, 2 - train, train, 2.1 - test, test, 1.0)
        for n, (train, test) in enumerate(zip(curves[0], curves[1], strict=True), start=1)
    ]
    run_record.write_history(workspace, config.name, tuple(rows))
    for name in names:
        folder = workspace.checkpoints_folder(config.name) / name
        folder.mkdir(parents=True)
        digests = {"variables": digest_of(config.name, name)}
        (folder / WHOLE).write_text(json.dumps({"custom_metadata": {"digests": digests}}))
    return entry


def digest_of(run: str, checkpoint: str) -> str:
    return f"sha256:{run}@{checkpoint}"


def keys(run: str, checkpoints=("final",), taps=None, sample_set=SET) -> list[RepresentationKey]:
    """Return all taps of some checkpoints of a run, those of All-CNN-C by default."""
    names = taps or RunConfig.of().architecture.network(10, 1, 12).taps
    return [RepresentationKey(sample_set, run, each, tap) for each in checkpoints for tap in names]


def probe_of(name: str, taps, *, digest: str | None = None, **changes) -> ProbeResult:
    """Return a probe of known numbers: half of 64 test examples right, then more and more."""
    n, of = len(taps), taps[0]
    digest = digest or digest_of(of.run, of.checkpoint)
    job = Probing(Selection(of.run, of.checkpoint), "digits-train-1000-89abcdef", of.sample_set)
    values = {
        "train_set": "digits-train-1000-89abcdef",
        "accuracy": np.linspace(0.5, 0.75, n),
        "train_accuracy": np.ones(n),
        "class_accuracy": np.full((n, 2), 0.5),
        "penalties": np.geomspace(0.01, 0.1, n),
        "n_features": 96 * np.arange(1, n + 1),
        "classes": (0, 1),
        "n_train": 1000,
        "n_test": 64,
        "provenance": {
            "created_at": "2026-04-01T00:00:00+00:00",
            "versions": {"numpy": "2.3"},
            "checkpoint_digest": digest,
            "job": json_of(job),
        },
    }
    return ProbeResult(name=name, taps=tuple(taps), **values | changes)


def write_probe(workspace: Workspace, name: str, taps, **changes) -> ProbeResult:
    """Write a probe of known numbers."""
    probe = probe_of(name, taps, **changes)
    store.write_probe(workspace.probes, probe)
    return probe


def write_result(workspace: Workspace, name: str, rows, columns, **changes) -> SimilarityResult:
    """Write a result of random numbers, some of them close to each other, with all their digits."""
    seed = sum(map(ord, name))
    rng = np.random.default_rng(seed)
    shape = (len(rows), len(columns))
    i, j = np.indices(shape)
    near = np.exp(-(((i % 10) - (j % 10)) ** 2) / 30)
    job = Comparison(*(Selection(side[0].run if side else "*", "*") for side in (rows, columns)))
    networks = [{f"{k.run}@{k.checkpoint}" for k in side} for side in (rows, columns)]
    digests = [{n: digest_of(*n.split("@")) for n in side} for side in networks]
    provenance = {
        "created_at": "2026-02-01T08:00:00+00:00",
        "versions": {"allcnn-cka": "0.1.0", "numpy": "2.3"},
        "checkpoint_digests": dict(zip(("rows", "columns"), digests, strict=True)),
        "job": job.to_json(),
    }
    how = {
        "values": near * (1 - 0.15 * rng.random(shape)),
        "hsic": rng.random(shape),
        "hsic_rows": rng.random(shape[0]),
        "hsic_columns": rng.random(shape[1]),
        "n_examples": 64,
        "batch_size": 16,
        "errors": 0.01 * rng.random(shape),
        "sources": (0, len(rows)),
        "provenance": provenance,
    }
    result = make_similarity(name, rows, columns, **how | changes)
    store.write_result(workspace.similarity, result)
    return result
