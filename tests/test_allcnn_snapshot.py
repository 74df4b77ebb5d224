"""A command asks once what exists: nothing is listed, opened or hashed twice."""

import pickle
import shutil
from collections import Counter

import numpy as np
import pytest

from allcnn.compare import candidates, current
from allcnn.compare.current import is_current, is_record_current
from allcnn.errors import RunError
from allcnn.extract import extract
from allcnn.settings.extraction import Extraction
from allcnn.settings.selection import Selection
from allcnn.workspace import paths, run_record
from allcnn.workspace.paths import Snapshot, Workspace
from store.arrays import scan
from tests.commands import succeed
from tests.networks import A, B, make_taps, write_network

ONE, TWO = "small-d1-v2-s0", "small-d2-v2-s0"


@pytest.fixture(scope="module")
def stored(trained, tmp_path_factory):
    """Return a workspace of two runs that are stored and compared; copy it before writing."""
    place = Workspace.at(shutil.copytree(trained.root, tmp_path_factory.mktemp("stored") / "w"))
    for run in (ONE, TWO):
        for checkpoint in ("init", "final"):
            extract(place, Extraction(run, checkpoint, n_samples=32, batch_size=16))
    succeed("matrix", f"{ONE}@*", f"{TWO}@*", "--batch-size", 16, workspace=place)
    return place


@pytest.fixture
def asked(monkeypatch):
    """Count how often each group, digest and record is opened."""
    counts = Counter()

    def count(home, name, key):
        wrapped = getattr(home, name)

        def call(*arguments):
            counts[name, key(*arguments)] += 1
            return wrapped(*arguments)

        monkeypatch.setattr(home, name, call)

    count(scan.CommittedStore, "_try_open", lambda self, path: (str(self.path), path))
    count(current, "kept_digests", str)
    count(current, "load_source", lambda place, *of: of)
    count(run_record, "read_sealed", str)
    return counts


PAIR = f"{ONE}@*", f"{TWO}@*"


@pytest.mark.parametrize(
    "command",
    [
        ("figure", "matrix", *PAIR, "--batch-size", 16, "--to", "x.png"),
        ("report",),
        ("store", "gc", "--dry-run"),
        ("store", "verify"),
        ("matrix", *PAIR, "--batch-size", 16),
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)
def test_a_command_opens_nothing_twice(stored, asked, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    succeed(*command, workspace=stored)
    assert asked
    assert {question: n for question, n in asked.items() if n > 1} == {}


def test_a_snapshot_answers_as_its_workspace_did(stored, asked, monkeypatch):
    listed = []
    child_names = paths.child_names
    monkeypatch.setattr(paths, "child_names", lambda *of: listed.append(of) or child_names(*of))
    seen = Snapshot.of(stored)
    assert Snapshot.of(seen) is seen
    side = Selection("*", "*")
    for _ in range(3):
        assert seen.runs() == stored.runs() == [ONE, TWO]
        assert seen.checkpoints(ONE) == ["init", "epoch-0001", "final"]
        assert list(seen.stored_networks()) == [
            Selection(run, name) for run in (ONE, TWO) for name in ("final", "init")
        ]
        assert candidates.find(seen, side, None) == candidates.find(seen, side, None)
        for each in (Selection(ONE, "final"), Selection(TWO, "init")):
            assert current.checkpoint_digest(seen, each).startswith("sha256:")
        n_listed, n_asked = len(listed), asked.total()
        listed.clear()
        asked.clear()
    assert n_asked == 0
    assert n_listed == 1  # the runs of the workspace that is compared with


def test_errors_are_answers_too(stored, asked):
    seen = Snapshot.of(stored)
    for _ in range(2):
        with pytest.raises(RunError, match="no run 'x'"):
            run_record.read_record(seen, "x")
        with pytest.raises(RunError, match="has no checkpoint 'epoch-0009'"):
            current.checkpoint_digest(seen, Selection(ONE, "epoch-0009"))
    assert asked == {}


def test_what_a_command_stores_is_seen_once_it_says_so(tmp_path):
    seen = Snapshot.at(tmp_path)
    write_network(seen.activations, A, make_taps(0))
    assert list(seen.stored_networks()) == [A]
    assert len(candidates.find(seen, Selection("*", "*"), None)) == len(make_taps(0))
    write_network(seen.activations, B, make_taps(1))
    assert list(seen.stored_networks()) == [A]
    seen.forget([B])
    assert list(seen.stored_networks()) == [A, B]
    assert len(candidates.find(seen, Selection("*", "*"), None)) == 2 * len(make_taps(0))


def test_a_snapshot_is_sent_to_others_without_its_answers(stored):
    seen = Snapshot.of(stored)
    seen.runs()
    sent = pickle.loads(pickle.dumps(seen))
    assert sent == seen
    assert sent._answers == {}


BEFORE, BEGUN, AFTER = (f"2026-01-0{day}T00:00:00+00:00" for day in (1, 2, 3))


@pytest.mark.parametrize(
    ("now", "digests", "created_at", "extracted", "wanted"),
    [
        ("d", {"d"}, BEFORE, True, True),  # trained again with the same outcome
        ("d", {"d"}, AFTER, True, True),
        ("d", {"e"}, BEFORE, True, False),
        ("d", {"e"}, AFTER, True, False),  # another run was restored under this name since
        ("d", {"d", "e"}, AFTER, True, False),
        (None, {"d"}, AFTER, True, True),
        (None, {"d"}, BEFORE, True, False),
        ("d", {"rows"}, AFTER, False, True),
        ("d", {"rows"}, BEFORE, False, False),
        (None, {"rows"}, BEGUN, False, True),
        (None, {"rows"}, BEFORE, False, False),
    ],
)
def test_one_rule_says_what_belongs_to_a_checkpoint(
    tmp_path, monkeypatch, now, digests, created_at, extracted, wanted
):
    place = Workspace.at(tmp_path)
    monkeypatch.setattr(current, "digest_or_none", lambda *_: now)
    monkeypatch.setattr(run_record, "begun_at", lambda *_: BEGUN)
    assert is_current(place, A, digests, created_at, extracted=extracted) is wanted


@pytest.mark.parametrize(
    ("now", "imported", "digest", "created_at", "wanted"),
    [
        ("d", None, "d", BEFORE, True),
        ("d", None, None, AFTER, True),
        ("d", None, "e", AFTER, False),
        ("d", "rows", "rows", AFTER, True),
        ("d", "rows", "e", AFTER, False),
        (None, None, "d", AFTER, True),
        (None, None, "d", BEFORE, False),
        (None, "rows", "rows", AFTER, True),
        (None, "rows", "d", AFTER, False),
    ],
)
def test_a_result_is_current_by_the_same_rule(
    tmp_path, monkeypatch, now, imported, digest, created_at, wanted
):
    place = Workspace.at(tmp_path)
    on = "digits-test-66-01234567"
    if imported:
        changes = {"checkpoint_digest": imported, "labels": np.zeros(66, np.int32)}
        write_network(place.activations, A, make_taps(0, n=66), **changes)
    monkeypatch.setattr(current, "digest_or_none", lambda *_: now)
    monkeypatch.setattr(run_record, "begun_at", lambda *_: BEGUN)
    assert is_record_current(place, A, on, digest, created_at) is wanted
