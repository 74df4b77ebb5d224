"""Nightly runs on a workspace: new data are added, changed data redone, the rest is left."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import store
from allcnn import compare as comparing
from allcnn import extract
from allcnn.cluster.cluster import Cluster
from allcnn.compare import tasks
from allcnn.errors import ConfigError, RunError, WorkspaceError
from allcnn.progress import silent
from allcnn.settings.extraction import Extraction
from allcnn.settings.selection import EVERYTHING, Selection
from allcnn.training import loop
from allcnn.workspace import run_locks, run_record
from allcnn.workspace.nightly_ledger import Ledger
from allcnn.workspace.paths import Workspace
from flows.maintenance import earlier_results, rotating_verification
from flows.maintenance import nightly_run as nights
from flows.maintenance.earlier_results import moved
from flows.maintenance.nightly_run import holding, work_through
from flows.maintenance.nightly_summary import headline, markdown, text
from flows.maintenance.rotating_verification import in_turn, units
from flows.settings.nightly_plan import Nightly
from store import ClaimedError, RepresentationKey, Store, open_grams
from tests.commands import contents
from tests.counting import calls_of
from tests.faults import chunk_files, flip_bit
from tests.networks import comparison, make_taps, methods, write_network
from tests.prefect_api import wait_for
from tests.strategies import make_similarity
from tests.sweeps import slow

ONE, TWO = "small-d1-v2-s0", "small-d2-v2-s0"
N = 64
CHECKPOINTS = ("init", "epoch-0001", "final")


pytestmark = pytest.mark.usefixtures("sketched")

FIRST_LAYERS = (Selection("*", "*", "conv[12]"),)
"""Of all networks, which is enough and quickly drawn."""


def plan_of(networks=EVERYTHING, matrices=FIRST_LAYERS, **changes) -> Nightly:
    plan = {
        "networks": networks,
        "matrices": matrices,
        "split": "test",
        "n_samples": N,
        "dtype": "float32",
        "keep": ("grams",),
        "share": 1.0,
        "repair": True,
        "busy": "step-aside",
    }
    flat = {name: changes.pop(name) for name in [*changes] if name not in plan}
    return Nightly.of(methods(**{"batch_size": 16} | flat), **plan | changes)


def step(name, body):
    return body(silent)


def run_night(workspace, **changes):
    """Spend a night; return its summary."""
    with holding(workspace, plan_of(**changes)) as at_work, Cluster() as cluster:
        work_through(at_work, cluster, step)
        at_work.end()
        return at_work.summary


class Counted:
    """How often the functions that do the work were called."""

    def __init__(self, monkeypatch):
        self.forward = calls_of(monkeypatch, extract.stream, "take_minibatch")
        self.pairs = calls_of(monkeypatch, tasks.pair_sums, "minibatch_sums")
        self.grams = calls_of(monkeypatch, tasks, "gram_writer")

    def reset(self):
        for calls in (self.forward, self.pairs, self.grams):
            calls.clear()


@pytest.fixture
def counted(monkeypatch):
    return Counted(monkeypatch)


@pytest.fixture(scope="module")
def first_night(trained, tmp_path_factory):
    """Return a workspace after its first night; copy it before writing."""
    root = shutil.copytree(trained.root, tmp_path_factory.mktemp("night") / "workspace")
    run_night(Workspace.at(root))
    return root


@pytest.fixture
def known(first_night, tmp_path):
    """Return a copy of a workspace after its first night."""
    return Workspace.at(shutil.copytree(first_night, tmp_path / "known"))


def results(workspace):
    return [
        store.read_result(workspace.similarity, name)
        for name in store.list_results(workspace.similarity)
    ]


def untouched(workspace):
    """Return what a night that has nothing to do leaves as it is."""
    found = contents(workspace.root)
    return {name: content for name, content in found.items() if not name.startswith(NOTES)}


NOTES = ("nightly/", "report/index.html")


def retrain(workspace, run, **changes):
    """Train a run again under its name, with other settings."""
    config = run_record.read_record(workspace, run).config
    shutil.rmtree(workspace.run_folder(run))
    loop.train(replace(config, **changes), workspace)


def test_a_first_night_stores_and_compares_everything(workspace, tmp_path, counted):
    summary = run_night(workspace)
    assert len(summary.added) == 6
    assert (summary.again, summary.skipped, summary.failed) == ([], [], [])
    assert len(counted.forward) == 6 * N // 16
    assert counted.grams == []  # from the forward pass
    assert not store.has_store(workspace.activations)
    (result,) = results(workspace)
    (change,) = summary.changed
    assert (change.change, change.n_added) == ("new", 12)
    # The same from activations, by commands.
    other = Workspace.at(tmp_path / "other")
    other.root.mkdir()
    (other.root / "runs").symlink_to(workspace.root / "runs")
    for run in (ONE, TWO):
        for name in CHECKPOINTS:
            extract.extract(other, Extraction(run, name, n_samples=N, batch_size=16))
    (wanted,) = comparing.compare(other, comparison(*FIRST_LAYERS * 2, batch_size=16))
    assert len(wanted.rows) == 12
    np.testing.assert_allclose(result.cka, wanted.cka, rtol=0, atol=1e-6)
    assert result.rows == wanted.rows
    assert (workspace.root / "report/index.html").is_file()
    assert (workspace.figures / f"{result.name}.png").is_file()
    assert (workspace.figures / "nightly-curves.png").is_file()


def test_a_night_with_nothing_to_do_does_nothing(known, counted):
    before = untouched(known)
    summary = run_night(known)
    assert (counted.forward, counted.grams, counted.pairs) == ([], [], [])
    assert untouched(known) == before
    assert (summary.added, summary.again, summary.changed) == ([], [], [])
    assert summary.n_present == 6
    assert [each.change for each in summary.moved] == ["unchanged"]


def test_a_new_checkpoint_costs_itself_alone(workspace, counted):
    hidden = workspace.root / "hidden"
    (workspace.checkpoints_folder(ONE) / "final").rename(hidden)
    run_night(workspace)
    (before,) = results(workspace)
    hidden.rename(workspace.checkpoints_folder(ONE) / "final")
    counted.reset()
    summary = run_night(workspace)
    assert [each.split(" on ")[0] for each in summary.added] == [f"{ONE}@final"]
    assert len(counted.forward) == N // 16
    assert summary.n_present == 5
    (after,) = results(workspace)
    assert len(after.rows) == len(before.rows) + 2
    (change,) = summary.changed
    assert (change.change, change.n_added) == ("extended", 2)
    assert change.largest == 0  # the same Grams, and the same sums to the last bit
    assert change.before == before.name
    # Its numbers are all in the new one.
    assert summary.n_superseded == 1
    assert not (workspace.figures / f"{before.name}.png").exists()


def test_a_run_trained_again_is_stored_and_compared_again(known, counted):
    for run in (ONE, TWO):
        sides = Selection(run, "init", "conv1"), Selection(run, "final")
        comparing.compare(known, comparison(*sides, batch_size=16))
    old = {result.name: result for result in results(known)}
    retrain(known, ONE, learning_rate=0.05)
    counted.reset()
    summary = run_night(known)
    again = {each.split(" on ")[0] for each in summary.again}
    assert again == {f"{ONE}@epoch-0001", f"{ONE}@final"}  # init is the same one
    assert len(counted.forward) == 2 * N // 16
    changed = {each.result: each for each in summary.changed}
    new = {result.name: result for result in results(known)}
    assert set(changed) == set(new) - set(old)
    for name, change in changed.items():
        assert change.change == "recomputed"
        before, after = old[change.before], new[name]
        assert before.rows == after.rows
        distance = np.abs(after.cka - before.cka)
        assert change.largest == pytest.approx(distance.max(), abs=0)
        assert change.mean == pytest.approx(distance.mean(), rel=1e-12)
        assert change.largest > 0.001
    # Nobody can compute the old ones again.
    assert set(old) <= set(new)
    unchanged = [each for each in summary.moved if each.change == "unchanged"]
    assert len(unchanged) == 1
    counted.reset()
    summary = run_night(known)
    assert summary.changed == []
    assert (counted.forward, counted.grams, counted.pairs) == ([], [], [])


@pytest.mark.slow
def test_times_decide_nothing(known, counted):
    config = run_record.read_record(known, ONE).config
    # The same settings give the same checkpoints, to the last bit.
    shutil.rmtree(known.run_folder(ONE))
    loop.train(config, known)
    for path in known.root.rglob("*"):
        os.utime(path, (2**31 - 2, 2**31 - 2))
    summary = run_night(known)
    assert (summary.again, summary.changed, summary.failed) == ([], [], [])
    assert (counted.forward, counted.pairs) == ([], [])


@pytest.mark.slow
def test_activations_are_stored_again_as_they_were(known):
    job = Extraction(ONE, "final", n_samples=32, batch_size=8, dtype="float16", compression="zstd")
    extract.extract(known, job)
    retrain(known, ONE, learning_rate=0.05)
    summary = run_night(known)
    assert len(summary.again) == 3  # final on two sample sets
    taps = Store(known.activations).find(run=ONE)
    assert len(taps) == 10
    digest = extract.load_source(known, ONE, "final").digest
    for tap in taps:
        assert (tap.meta.checkpoint_digest, tap.complete) == (digest, True)
        assert (tap.meta.batch_rows, tap.meta.dtype, tap.compression) == (8, "float16", "zstd")
    kept = open_grams(known.grams).find(run=ONE, checkpoint="final")
    assert {grams.key.checkpoint_digest for grams in kept} == {digest}


@pytest.mark.slow
def test_what_an_earlier_run_left_is_told_and_not_compared(known):
    retrain(known, ONE, epochs=1)  # without an epoch-0001 that is not the final one
    gone = [name for name in CHECKPOINTS if name not in known.checkpoints(ONE)]
    assert gone == ["epoch-0001"]
    entry = run_record.read_record(known, ONE)
    run_record.write_record(known, replace(entry, created_at="2100-01-01T00:00:00+00:00"))
    summary = run_night(known)
    told = [each for each in summary.skipped if "left of an earlier run" in each.reason]
    assert [each.what.split(" on ")[0] for each in told] == [f"{ONE}@epoch-0001"]
    newest = max(results(known), key=lambda result: result.provenance["created_at"])
    assert f"{ONE}@epoch-0001" not in {f"{key.run}@{key.checkpoint}" for key in newest.rows}


@pytest.fixture(scope="module")
def before_and_after(first_night, tmp_path_factory):
    """Return a workspace with a run trained again, and a copy after the night that follows."""
    before = Workspace.at(shutil.copytree(first_night, tmp_path_factory.mktemp("before") / "w"))
    # On other examples than a night's: removed, nothing but the ledger knows of it.
    extract.extract(before, Extraction(ONE, "final", n_samples=32, batch_size=16))
    retrain(before, ONE, learning_rate=0.05)
    after = Workspace.at(shutil.copytree(before.root, tmp_path_factory.mktemp("after") / "w"))
    run_night(after)
    return before, after


@pytest.mark.parametrize("at", [slow("removed"), "half", slow("stored"), slow("compared")])
def test_an_interrupted_night_is_finished_by_the_next(before_and_after, tmp_path, monkeypatch, at):
    before, whole = before_and_after
    known = Workspace.at(shutil.copytree(before.root, tmp_path / "known"))

    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        if at == "removed":
            patch.setattr(nights, "keep", kill)
        elif at == "half":
            original, calls = extract.stream.take_minibatch, []

            def third(*arguments):
                calls.append(1)
                if len(calls) == 3:
                    raise Killed
                original(*arguments)

            patch.setattr(extract.stream, "take_minibatch", third)
        elif at == "stored":
            patch.setattr(nights.comparing, "compare", kill)
        else:
            patch.setattr(earlier_results, "remove_superseded", kill)
        with pytest.raises(Killed):
            run_night(known)
    summary = run_night(known)
    assert (summary.failed, summary.skipped) == ([], [])
    taps = {tap.key: tap.rows_digest for tap in Store(whole.activations).find()}
    assert len(taps) == 10
    assert {tap.key: tap.rows_digest for tap in Store(known.activations).find()} == taps
    grams = {one.key: one.rows_digest for one in open_grams(whole.grams).find()}
    assert {one.key: one.rows_digest for one in open_grams(known.grams).find()} == grams
    assert all(one.complete for one in open_grams(known.grams).find())
    for one, other in zip(results(known), results(whole), strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.cka, other.cka)
    assert Ledger.read(known)[0].pending == []


@pytest.mark.slow
def test_nothing_goes_where_its_checkpoint_cannot_be_read(known, monkeypatch):
    extract.extract(known, Extraction(ONE, "final", n_samples=32, batch_size=8))
    retrain(known, ONE, learning_rate=0.05)

    def damaged(_, run, checkpoint):
        raise RunError(f"the checkpoint {run}/{checkpoint} cannot be read")

    monkeypatch.setattr(nights, "load_source", damaged)
    before = contents(known.activations) | contents(known.grams)
    summary = run_night(known)
    assert {each.what for each in summary.failed} == {
        f"store-{ONE}@epoch-0001",
        f"store-{ONE}@final",
    }
    assert contents(known.activations) | contents(known.grams) == before


def test_a_second_night_steps_aside_while_the_first_is_at_work(known):
    with holding(known, plan_of()), pytest.raises(ClaimedError, match="is being written by"):
        run_night(known)
    run_night(known)


@pytest.mark.slow
def test_what_fails_keeps_nothing_else_from_being_done(workspace, monkeypatch):
    original = nights.keep

    def failing(workspace, source, *others):
        if (source.run, source.checkpoint) == (ONE, "epoch-0001"):
            raise OSError("the disk is full")
        original(workspace, source, *others)

    with monkeypatch.context() as patch:
        patch.setattr(nights, "keep", failing)
        summary = run_night(workspace)
    (failed,) = summary.failed
    assert failed.what == f"store-{ONE}@epoch-0001"
    assert failed.reason == "OSError: the disk is full"
    assert len(summary.added) == 5
    (result,) = results(workspace)
    assert len(result.rows) == 12 - 2
    summary = run_night(workspace)
    assert [each.split(" on ")[0] for each in summary.added] == [f"{ONE}@epoch-0001"]
    assert summary.changed[0].change == "extended"


def test_a_run_that_cannot_be_read_is_skipped(known):
    (known.run_folder(ONE) / "config.json").write_text("{}")
    summary = run_night(known)
    assert [each.what for each in summary.skipped] == [f"run {ONE}"]
    assert "does not describe a run" in summary.skipped[0].reason
    assert summary.failed == []


def damage_grams(workspace):
    grams = open_grams(workspace.grams).find(run=ONE, checkpoint="final", tap="conv2")[0]
    flip_bit(chunk_files(workspace.grams / grams.key.path / "grams")[0])


def test_damage_is_found_in_its_turn_and_repaired(known):
    before = contents(Path(known.grams))
    damage_grams(known)
    found = []
    for _ in range(8):
        summary = run_night(known, share=1 / 7)
        assert summary.verified.n_units == 1
        found.append(len(summary.verified.damage))
    assert sorted(found) == [0] * 7 + [1]
    after = contents(Path(known.grams))
    assert {name for name in before if before[name] != after[name]} == set()


@pytest.mark.slow
def test_what_cannot_be_verified_keeps_nothing_else_from_its_turn(known, monkeypatch):
    original, stuck = rotating_verification._checked, units(known)[0]

    def unreadable(workspace, unit):
        if unit == stuck:
            raise OSError("Input/output error")
        return original(workspace, unit)

    monkeypatch.setattr(rotating_verification, "_checked", unreadable)
    damage_grams(known)
    summary = run_night(known)
    assert summary.failed == []
    assert summary.verified.n_units == 6
    assert f"{stuck} cannot be verified: Input/output error" in summary.verified.said
    assert summary.verified.n_repaired == 1
    assert len(Ledger.read(known)[0].verified) == 7


@pytest.mark.slow
def test_damage_is_told_where_its_repair_fails(known, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(rotating_verification, "repair", full)
    damage_grams(known)
    summary = run_night(known)
    (said,) = summary.verified.said
    assert "not repaired: no space left" in said
    assert len(summary.verified.damage) == 1


def test_a_verification_that_is_killed_is_remembered(known, monkeypatch):
    class Killed(BaseException):
        pass

    original, looked = rotating_verification._checked, []

    def third(workspace, unit):
        looked.append(unit)
        if len(looked) == 3:
            raise Killed
        return original(workspace, unit)

    monkeypatch.setattr(rotating_verification, "_checked", third)
    monkeypatch.setattr(rotating_verification, "_WRITE_EVERY_S", 0.0)
    remembered = Ledger.read(known)[0]
    remembered.verified = {}
    remembered.write(known)
    with pytest.raises(Killed):
        run_night(known)
    assert list(Ledger.read(known)[0].verified) == looked[:2]


def test_damage_is_told_where_it_must_not_be_repaired(known):
    damage_grams(known)
    summary = run_night(known, repair=False)
    (said,) = summary.verified.said
    assert "damaged" in said
    assert summary.verified.n_repaired == 0
    assert "1 damaged" in headline(summary)
    assert said in markdown(summary)
    assert said in text(summary)


@pytest.mark.slow
def test_a_share_a_night_comes_round_in_so_many_nights(known):
    every = units(known)
    assert len(every) == 7
    verified, seen = {}, []
    for day in range(4):
        chosen = in_turn(every, verified, 0.25)
        assert len(chosen) == 2
        seen += chosen
        verified |= dict.fromkeys(chosen, f"2026-01-0{day + 1}")
    assert set(seen) == set(every)
    assert in_turn(every, {}, 1 / 7) == every[:1]


def test_a_ledger_that_is_lost_costs_only_what_it_remembered(known, counted):
    path = known.root / "nightly/ledger.json"
    path.write_text("{")
    counted.reset()
    summary = run_night(known)
    assert (counted.forward, counted.pairs) == ([], [])
    assert "cannot be used" in summary.notes[0]
    assert [each.change for each in summary.moved] == ["unchanged"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    assert "it is of another version" in run_night(known).notes[0]


@pytest.mark.slow
def test_each_sample_set_has_a_matrix_of_its_own(known):
    config = run_record.read_record(known, ONE).config
    loop.train(replace(config, image_size=16, prefix="other", epochs=1), known)
    summary = run_night(known)
    assert summary.failed == []
    sets = {result.rows[0].sample_set for result in results(known)}
    assert len(sets) == 2
    assert [each.change for each in summary.changed] == ["new"]


@pytest.mark.slow
def test_the_report_marks_what_is_outdated(known):
    retrain(known, ONE, learning_rate=0.05)
    run_night(known)
    page = (known.root / "report/index.html").read_text()
    assert "trained again since" in page
    for result in results(known):
        assert page.count(f'<tr id="result-{result.name}">') == 1
        assert (known.root / f"report/data/{result.name}.js").is_file()
    assert "allcnn matrix '*@*:conv[12]'" in page


def test_a_plan_refuses_what_no_night_can_do():
    with pytest.raises(ConfigError, match="share is 0; use a number from 1e-09 to 1"):
        plan_of(share=0)
    with pytest.raises(ConfigError, match="all taps are stored together; leave out ':conv1'"):
        plan_of(networks=Selection("*", "*", "conv1"))
    with pytest.raises(ConfigError, match="exact HSIC needs activations"):
        plan_of(estimator="exact")


def make_result(name, taps, cka, digests="a"):
    keys = tuple(RepresentationKey("set-test-8-00000000", "run", "final", tap) for tap in taps)
    of = {"run@final": digests}
    made = {"checkpoint_digests": {"rows": of, "columns": of}}
    return make_similarity(name, keys, keys, np.array(cka, float), 8, batch_size=8, provenance=made)


def test_movement_is_of_what_both_have():
    before = make_result("before", "ab", [[1, 0.5], [0.5, 1]])
    now = make_result("now", "cba", [[1, 0.2, 0.3], [0.2, 1, 0.4], [0.3, 0.4, 1]])
    found = moved(before, now, "these")
    assert (found.change, found.n_added, found.before) == ("extended", 1, "before")
    assert found.largest == pytest.approx(0.1)
    assert found.mean == pytest.approx(0.05)
    assert found.where in ("run@final:a with run@final:b", "run@final:b with run@final:a")


def test_a_result_goes_only_where_a_newer_one_has_its_numbers(tmp_path):
    workspace = Workspace.at(tmp_path)
    same, other = [[1, 0.5], [0.5, 1]], [[1, 0.50001], [0.50001, 1]]
    for name, cka in (("same", same), ("other", other)):
        store.write_result(workspace.similarity, make_result(name, "ab", cka))
    now = make_result("now", "cba", [[1, 0.2, 0.3], [0.2, 1, 0.5], [0.3, 0.5, 1]])
    store.write_result(workspace.similarity, now)
    assert earlier_results.remove_superseded(workspace, now, ["same", "other", "now"]) == 1
    assert sorted(store.list_results(workspace.similarity)) == ["now", "other"]


def test_movement_between_numbers_and_none():
    nan = np.nan
    before = make_result("before", "ab", [[1, nan], [nan, nan]], "a")
    now = make_result("now", "ab", [[1, 0.5], [0.5, nan]], "b")
    found = moved(before, now, "these")
    assert (found.change, found.largest, found.mean) == ("recomputed", 0.0, 0.0)
    found = moved(make_result("before", "x", [[1]]), make_result("now", "y", [[1]]), "these")
    assert (found.change, found.largest, found.n_added) == ("recomputed", None, 1)


def test_a_full_disk_at_the_end_is_an_error(known, monkeypatch):
    def full(*_):
        raise WorkspaceError("cannot write: no space left")

    monkeypatch.setattr("allcnn.workspace.nightly_ledger.write_json", full)
    with pytest.raises(WorkspaceError, match="no space left"):
        run_night(known)


@pytest.mark.slow
def test_an_unfinished_network_keeps_no_other_from_being_compared(workspace, monkeypatch):
    original = extract.stream.take_minibatch
    calls = []

    def fails_once(*arguments):
        calls.append(1)
        if len(calls) == 6:  # in the middle of the second network
            raise OSError("the disk is full")
        original(*arguments)

    # And one whose writer is gone for good.
    taps = make_taps(n=N)
    write_network(workspace.activations, Selection("gone", "final"), taps, n_committed=16)
    with monkeypatch.context() as patch:
        patch.setattr(extract.stream, "take_minibatch", fails_once)
        summary = run_night(workspace)
    (failed,) = summary.failed
    assert failed.reason == "OSError: the disk is full"
    (result,) = results(workspace)
    assert len(result.rows) == 2 * 5
    summary = run_night(workspace)
    assert summary.failed == []
    assert summary.changed[0].change == "extended"
    assert len(results(workspace)[0].rows) == 2 * 6


@pytest.mark.slow
def test_damaged_metadata_of_one_network_block_no_other(known):
    config = run_record.read_record(known, ONE).config
    tap = open_grams(known.grams).find(run=TWO, checkpoint="final", tap="conv1")[0]
    (known.grams / tap.key.path / "zarr.json").write_text("{")
    loop.train(replace(config, seed=5), known)
    summary = run_night(known, repair=False)
    assert summary.changed[0].n_added == 2 * 3
    assert [each for each in summary.skipped if f"{TWO}@final" in each.what]


def test_imported_activations_under_a_runs_name_stay(known):
    (path,) = (known.activations,)
    examples = extract.load_samples("digits", 12, "test", N)
    meta = {"run": ONE, "checkpoint": "final", "examples": examples}
    taps = {"mine": np.random.default_rng(0).standard_normal((N, 5), np.float32)}
    store.write_network(path, taps, **meta)
    before = contents(Path(path))
    summary = run_night(known)
    assert summary.again == []
    assert "not of the run of that name, but imported" in summary.skipped[0].reason
    assert contents(Path(path)) == before


@pytest.mark.slow
def test_a_matrix_of_a_command_is_extended_not_doubled(workspace):
    (workspace.checkpoints_folder(ONE) / "final").rename(workspace.root / "hidden")
    run_night(workspace)
    # The same by hand, where nothing has to be skipped; and in two bandwidths.
    sides = FIRST_LAYERS * 2
    comparing.compare(workspace, comparison(*sides, batch_size=16))
    comparing.compare(workspace, comparison(*sides, batch_size=16, kernel="rbf", sigma=(0.2, 0.8)))
    (workspace.root / "hidden").rename(workspace.checkpoints_folder(ONE) / "final")
    with holding(workspace, plan_of()) as at_work:
        assert [job.unusable for job in at_work.comparisons()] == ["skip", "refuse", "refuse"]
    summary = run_night(workspace)
    assert [each.change for each in summary.moved] == ["extended"] * 3
    assert len(results(workspace)) == 3
    summary = run_night(workspace, kernel="rbf", sigma=(0.2, 0.8))
    assert [each.change for each in summary.moved] == ["unchanged"] * 3


def test_a_step_that_is_tried_again_notes_nothing_twice(known):
    retrain(known, ONE, learning_rate=0.05)
    (known.run_folder(TWO) / "config.json").write_text("{}")
    with holding(known, plan_of()) as at_work, Cluster() as cluster:
        first = at_work.pieces()
        at_work.summary.skipped.clear()
        assert at_work.pieces() == first
        assert [each.what for each in at_work.summary.skipped] == [f"run {TWO}"]
        for piece in first:
            at_work.store(piece, silent)
        (job, *_) = at_work.comparisons()
        at_work.compare(job, cluster, silent)
        at_work.compare(job, cluster, silent)
        assert [each.change for each in at_work.summary.moved] == ["recomputed"]


def test_a_night_that_lost_the_workspace_ends(known, monkeypatch):
    monkeypatch.setattr(run_locks, "_RENEW_EVERY_S", 0.01)

    def taken():
        raise ClaimedError("somebody else has it")

    before = untouched(known)
    with run_locks.kept_alive(taken) as check:
        wait_for("loss", lambda: raises(check), 10)
        at_work = nights.NightlyRun(known, plan_of(), check)
        with pytest.raises(
            run_locks.LostHoldError, match="another nightly run has taken the workspace"
        ):
            at_work.end()
        with Cluster() as cluster, pytest.raises(run_locks.LostHoldError):
            work_through(at_work, cluster, step)
    assert untouched(known) == before


def raises(check):
    try:
        check()
    except run_locks.LostHoldError:
        return True
    return False


def test_a_ledger_that_cannot_be_used_is_kept_aside(known):
    path = known.root / "nightly/ledger.json"
    path.write_text('{"schema_version": 99}')
    run_night(known)
    aside = known.root / "nightly/ledger.unusable.json"
    assert aside.read_text() == '{"schema_version": 99}'


def test_numbers_that_become_undefined_are_counted():
    before = make_result("before", "ab", [[1, 0.5], [0.5, 1]], "a")
    now = make_result("now", "ab", [[1, np.nan], [np.nan, 1]], "b")
    found = moved(before, now, "these")
    assert (found.largest, found.n_redefined) == (0.0, 2)
