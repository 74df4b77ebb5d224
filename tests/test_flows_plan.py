"""What a pipeline is going to do, before it does anything."""

from dataclasses import replace
from pathlib import Path

import pytest

from allcnn.errors import ConfigError
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from flows.cli.local_pipeline import check_pipeline, weights
from flows.settings.pipeline_plan import DEMO, each_of, stages
from flows.settings.texts import parse_numbers
from store.errors import ClaimedError
from store.storage.claims import claim


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", (0,)), ("0-3,7", (0, 1, 2, 3, 7)), ("2, 1", (2, 1)), ("1,1-2", (1, 2)), ("3-3", (3,))],
)
def test_numbers_and_ranges(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_numbers("seeds", text) == numbers


@pytest.mark.parametrize(
    "text", ["", "a", "1,", "-1", "1-", "1..2", "²", "3-1", "0,9-1", "9" * 5000]
)
def test_what_is_no_list_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"seeds is '.*'; write numbers and ranges, as in 0-3,7"):
        parse_numbers("seeds", text)


def test_more_networks_than_anyone_trains_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="seeds is '0-4294967295'; name at most 10000 numbers"):
        parse_numbers("seeds", "0-4294967295")


@pytest.mark.parametrize(
    ("epochs", "every", "expected"),
    [
        (3, 1, ["init", "epoch-0001", "epoch-0002", "final"]),
        (5, 5, ["init", "final"]),
        (10, 5, ["init", "epoch-0005", "final"]),
    ],
)
def test_stages_of_a_short_training(epochs: int, every: int, expected: list[str]) -> None:
    assert stages(RunConfig.of(epochs=epochs, checkpoint_every=every)) == expected


def test_stages_of_a_long_training_are_few_and_denser_at_the_start() -> None:
    epochs = ("0005", "0020", "0075", "0180")
    assert stages(RunConfig.of(epochs=350)) == ["init", *(f"epoch-{e}" for e in epochs), "final"]


def test_there_is_a_run_for_each_combination_of_what_the_architecture_has() -> None:
    runs = each_of({"width": 0.5}, depth=(2, 1), seed=(0, 3))
    assert runs == tuple(RunConfig.of(width=0.5, depth=d, seed=s) for d in (2, 1) for s in (0, 3))
    runs = each_of({"architecture": "tiny"}, depth=(2, 1), seed=(0, 3))
    assert runs == tuple(RunConfig.of(architecture="tiny", seed=seed) for seed in (0, 3))


def test_every_pair_of_final_networks_is_compared_once() -> None:
    pairs = [(c.rows.run[5:], c.columns.run[5:]) for c in DEMO.between_runs("s")]
    a, b, c = "d1-v2-s0", "d1-v2-s1", "d2-v2-s0"
    assert pairs == [(a, a), (a, b), (a, c), (b, b), (b, c), (c, c)]


def test_whatever_is_compared_is_extracted() -> None:
    extracted = {Selection(e.run, e.checkpoint) for e in DEMO.extractions()}
    compared = set()
    for config in DEMO.runs:
        for job in (*DEMO.between_runs("s"), *DEMO.between_stages(config, "s")):
            compared |= {job.rows, job.columns}
            assert job.sample_set == "s"
    assert compared == extracted


def test_each_step_has_a_weight() -> None:
    n_runs = len(DEMO.runs)
    steps = n_runs + len(list(DEMO.extractions())) + len(list(DEMO.between_runs("s"))) + n_runs
    assert len(weights(DEMO)) == steps
    assert min(weights(DEMO)) > 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"runs": ()}, "the networks are none; name one or more, each once"),
        (
            {"runs": (RunConfig.of(),) * 2},
            "the networks are allcnn-d1-v2-s0, allcnn-d1-v2-s0; name one or more, each once",
        ),
        ({"n_samples": 2}, "samples is 2; use 4 or more"),
        ({"methods": ()}, r"methods are \[\]; name one or more, each once"),
        ({"dtype": "float8"}, "dtype is 'float8'; use float32 or float16"),
    ],
)
def test_a_pipeline_that_would_fail_late_is_refused(
    change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        replace(DEMO, **change)


def test_a_pipeline_whose_run_another_process_trains_is_refused_before_data_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.at(tmp_path)
    monkeypatch.setattr("flows.cli.local_pipeline.load_samples", None)  # nobody calls it
    plan = replace(DEMO, n_samples=64)
    last = plan.runs[-1].name
    with claim(workspace.run_folder(last)), pytest.raises(ClaimedError, match=f"{last} is being"):
        check_pipeline(workspace, plan)
