"""Hostile values of every option and in every record: one sentence, never a traceback."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allcnn.errors import AllcnnError
from allcnn.settings.run import RunConfig
from allcnn.workspace import run_record
from allcnn.workspace.nightly_ledger import Ledger
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_listing import Unreadable, list_runs
from allcnn.workspace.run_record import Epoch, RunRecord
from flows.cli.main import main
from flows.reporting import write_report
from tests.commands import run, succeed

HOSTILE = [
    "100000000000000000000",
    "1" + "0" * 5000,
    "-1",
    "0",
    "1e308",
    "1e-320",
    "nan",
    "inf",
    "",
    " ",
    "\U0001f4a5",
    "\udcff",
    "x" * 10**5,
    "../x",
    "-",
    "[",
    "{",
    "0-9999",
    "<img src=x>",
]

ARGUMENTS = {"file": "absent.tar", "files": "absent.npz", "name": "train", "run": "a"}
"""What stands where an argument is not the one that is hostile; of others ``a@final``."""


def commands(group: click.Group, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from commands(each, (*names, name))
        elif name not in ("demo", "flow"):  # without options; and its settings are tested as such
            yield (*names, name)


def command_of(names: tuple[str, ...]) -> click.Command:
    found: Any = main
    for name in names:
        found = found.commands[name]
    return found


def line_of(names: tuple[str, ...], wanted: click.Parameter, value: str, place: Path) -> list[str]:
    """Return the words of a command with one hostile value, in a workspace that is not there."""
    options, arguments = ["--workspace", str(place)], []
    for each in command_of(names).params:
        if isinstance(each, click.Argument):
            if each is wanted or each.required:
                plain = ARGUMENTS.get(str(each.name), "a@final")
                arguments.append(value if each is wanted else plain)
        elif each is wanted:
            options += [each.opts[0], value]
    return [*names, *options, "--", *arguments]


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let settings that are right do no work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.cli.local_pipeline.train_runs", lambda *_, **__: [])
    monkeypatch.setattr("flows.cli.main._show_outcome", lambda *_: None)
    monkeypatch.setattr("flows.cli.local_pipeline.run_pipeline", lambda *_: ([], {}))
    monkeypatch.setattr(
        "flows.cli.nightly_commands._whole_night", lambda *_: pytest.skip("a night")
    )


@pytest.mark.parametrize("names", [*commands(main)], ids=" ".join)
def test_no_option_takes_a_value_that_ends_in_a_traceback(names, idle, tmp_path):
    parameters = [
        each
        for each in command_of(names).params
        if not getattr(each, "is_flag", False) and not isinstance(each.type, click.Choice)
    ]
    for place, parameter in enumerate(parameters):
        # In turn: each option gets several kinds of values, each kind several options.
        for value in HOSTILE[place % 3 :: 3]:
            words = line_of(names, parameter, value, tmp_path / "absent")
            try:
                result = CliRunner().invoke(main, words)
            except pytest.skip.Exception:
                continue
            shown = f"{' '.join(names)} {parameter.name} {value[:20]!r}: {result.exc_info}"
            assert result.exit_code in (0, 1, 2), shown
            assert isinstance(result.exception, SystemExit | None), shown
            assert len(result.stderr) < 3000, shown
            assert not result.exit_code or "rror: " in result.stderr, shown


# records


def sound(root: Path) -> Workspace:
    """Return a workspace with one run that can be read."""
    place = Workspace.at(root)
    for seed in (0, 1):
        config = RunConfig.of(epochs=2, seed=seed)
        entry = RunRecord(config, ("cat", "dog"), 1, "2026-01-31T12:00:00+00:00")
        run_record.write_record(place, entry)
        run_record.write_history(place, config.name, (Epoch(1, 2.3, 0.1, 2.2, 0.2, 1.5),))
    return place


BAD, GOOD = "allcnn-d1-v2-s0", "allcnn-d1-v2-s1"

JUNK = st.one_of(
    st.sampled_from([None, True, "", " ", "<img src=x onerror=alert(1)>", "\udcff", "a\nb", []]),
    st.sampled_from([float("nan"), float("inf"), 1e308, 10**400, -1, {}, [[]], {"a": []}, "\0"]),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.recursive(st.integers(), lambda parts: st.lists(parts, max_size=2), max_leaves=3),
)


@st.composite
def spoilt(draw: st.DrawFn, values: Any) -> Any:
    """Return JSON values of which one, at any depth, is something else."""
    if isinstance(values, dict | list) and values and draw(st.integers(0, 4)):
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        copy, key = values.copy(), draw(st.sampled_from(keys))
        copy[key] = draw(spoilt(values[key]))
        return copy
    return draw(JUNK)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return sound(tmp_path_factory.mktemp("hostile"))


@settings(
    derandomize=True,
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.parametrize("name", ["config.json", "history.json"])
@given(data=st.data())
def test_a_bad_run_is_named_and_the_others_are_listed(place, name, data):
    file = place.run_folder(BAD) / name
    written = file.read_text()
    try:
        file.write_text(json.dumps(data.draw(spoilt(json.loads(written)))))
        bad, good = list_runs(place)
        shown = succeed("run", "ls", workspace=place)
        result = run("run", "show", BAD, workspace=place)
    finally:
        file.write_text(written)
    assert (bad.run, good.run) == (BAD, GOOD)
    assert not isinstance(good, Unreadable)
    assert GOOD in shown
    # What can be listed can be shown, and what cannot is one sentence.
    assert result.exit_code == isinstance(bad, Unreadable), result.output
    assert isinstance(result.exception, SystemExit | None)


@pytest.mark.parametrize(
    "change",
    [
        {"created_at": "<img src=x onerror=alert(1)>"},
        {"created_at": ["2026"]},
        {"created_at": "\udcff"},
        {"created_at": "2026-01-31"},
        {"input_channels": float("inf")},
        {"input_channels": True},
        {"class_names": "cats"},
        {"class_names": ["a\nb"]},
        {"class_names": ["a"] * 100_001},
    ],
)
def test_the_report_names_a_bad_run_beside_the_others(tmp_path, change):
    place = sound(tmp_path)
    file = place.run_folder(BAD) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    page = write_report(place).read_text()
    assert f"<strong>{BAD}</strong>: {file} " in page
    assert f"<summary>{GOOD}</summary>" in page
    assert "<img" not in page


@pytest.mark.parametrize("text", ["[" * 10**5, '{"config": 1, "config": 2}', "\x00", "[NaN]", "7"])
def test_a_text_that_is_no_record_is_named_beside_the_others(tmp_path, text):
    place = sound(tmp_path)
    for name in ("config.json", "history.json"):
        file = place.run_folder(BAD) / name
        written = file.read_text()
        file.write_text(text)
        bad, good = list_runs(place)
        assert isinstance(bad, Unreadable)
        assert not isinstance(good, Unreadable)
        assert name in bad.reason
        file.write_text(written)


NIGHT = {
    "began_at": "2026-03-01T01:00:00+00:00",
    "ended_at": "",
    "verified": {"n_units": 3, "n_all": 9, "damage": []},
    "n_unchanged": 7,
} | {name: [] for name in ("added", "again", "moved", "skipped", "failed")}

LEDGER = {
    "schema_version": 1,
    "pending": [],
    "results": {"job": "result"},
    "verified": {"grams/a/b/c": "2026-03-01T01:00:00+00:00"},
    "curves": {GOOD: 2},
    "nights": [NIGHT],
}


@settings(
    derandomize=True,
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_bad_memory_of_nights_is_lost_and_no_more(place, data):
    folder = place.root / "nightly"
    folder.mkdir(exist_ok=True)
    (folder / "ledger.json").write_text(json.dumps(data.draw(spoilt(LEDGER))))
    ledger, lost = Ledger.read(place)
    assert ledger == Ledger() or not lost
    assert "<td>2026-03-01T01:00" in write_report(place).read_text() or not ledger.nights


def test_a_sound_memory_is_kept(place):
    folder = place.root / "nightly"
    folder.mkdir(exist_ok=True)
    (folder / "ledger.json").write_text(json.dumps(LEDGER))
    ledger, lost = Ledger.read(place)
    assert (ledger.nights, lost) == ([NIGHT], "")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(spoilt(RunConfig.of().to_json()))
def test_settings_are_read_whole_or_refused(values):
    try:
        found = RunConfig.from_json(values)
    except (AllcnnError, TypeError):
        return
    assert json.loads(json.dumps(found.to_json())) == found.to_json()
