"""Writing a file in place of another: files of killed writers go, those of living ones stay."""

import fcntl
import os
import re
import threading

import pytest

import store
from store.records import records
from store.storage import claims, local_files
from store.storage.claims import CLAIM, claim, drop_dead
from store.storage.local_files import is_free, replacing
from store.storage.paths import remove_tree, write_bytes
from tests.faults import Killed, damaging, end_claims, killed_before
from tests.strategies import make_meta, make_similarity
from tests.test_store_claim import Holder

HOLD_FILE = """
import sys
from pathlib import Path
from store.storage.local_files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"theirs")
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.readline()
"""


def names(folder):
    return sorted(os.listdir(folder))


def test_what_a_kill_left_is_written_over(tmp_path):
    file = tmp_path / "values.json"
    write_bytes(file, b"old")
    with pytest.raises(Killed), killed_before(0):
        write_bytes(file, b"x" * 1000)
    assert names(tmp_path) == ["values.json", "values.json.partial"]
    assert file.read_bytes() == b"old"
    write_bytes(file, b"new")
    assert names(tmp_path) == ["values.json"]
    assert file.read_bytes() == b"new"


def test_a_living_writer_of_the_same_file_is_not_disturbed(tmp_path):
    file = tmp_path / "values.json"
    with Holder(file, HOLD_FILE) as other:
        write_bytes(file, b"ours")
        assert file.read_bytes() == b"ours"
        assert names(tmp_path) == ["values.json", "values.json.partial"]
        other.release()
    assert file.read_bytes() == b"theirs"
    assert names(tmp_path) == ["values.json"]


def test_a_writer_that_was_killed_holds_nothing(tmp_path):
    file = tmp_path / "values.json"
    with Holder(file, HOLD_FILE):
        pass
    write_bytes(file, b"ours")
    assert names(tmp_path) == ["values.json"]


def test_many_at_once_write_whole_files_and_leave_nothing(tmp_path):
    file, n = tmp_path / "values.json", 8
    contents = [bytes([k]) * 3000 for k in range(n)]

    def work(content):
        for _ in range(20):
            write_bytes(file, content)
            assert file.read_bytes() in contents

    threads = [threading.Thread(target=work, args=(each,)) for each in contents]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert names(tmp_path) == ["values.json"]


def fail_halfway(file, error):
    with replacing(file) as stream:
        stream.write(b"half")
        raise error


@pytest.mark.parametrize("error", [OSError("no room"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_alone(tmp_path, error):
    file = tmp_path / "values.json"
    write_bytes(file, b"old")
    with pytest.raises(type(error)):
        fail_halfway(file, error)
    assert names(tmp_path) == ["values.json"]
    assert file.read_bytes() == b"old"


@pytest.mark.parametrize("make", [os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_in_the_way_is_passed_by(tmp_path, make):
    make(tmp_path / "values.json.partial")
    write_bytes(tmp_path / "values.json", b"new")
    assert (tmp_path / "values.json").read_bytes() == b"new"
    assert names(tmp_path) == ["values.json", "values.json.partial"]


def test_a_file_system_without_locks_gets_names_of_its_own(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(local_files.NO_LOCKS[0], "no locks")

    monkeypatch.setattr(fcntl, "flock", none)
    with replacing(tmp_path / "a") as first, replacing(tmp_path / "a") as second:
        first.write(b"1")
        second.write(b"2")
    assert (tmp_path / "a").read_bytes() == b"1"
    assert not is_free(tmp_path / "a")
    assert [name for name in names(tmp_path) if name != "a.partial"] == ["a"]


# Records


def write(path, name="first", value=0.5):
    keys = (make_meta().key,)
    store.write_result(path, make_similarity(name, keys, keys, [[value]], 8))


@damaging
def test_a_record_takes_away_what_kills_left_of_it(tmp_path):
    write(tmp_path / "whole")
    for n in range(1, 1000, 4):
        path = tmp_path / str(n)
        write(path)
        try:
            with killed_before(n):
                write(path, value=0.25)
        except Killed:
            end_claims()
        else:
            break
        write(path, "second")
        write(path, value=0.75)
        assert names(path) == ["first", "second", "zarr.json"]
        assert store.read_result(path, "first").values[0, 0] == 0.75
    assert n > 20


def test_the_draft_of_a_living_writer_of_a_record_stays(tmp_path):
    write(tmp_path)
    with records._locked_draft(tmp_path, "first") as draft:
        (tmp_path / f"{draft.stem}.replaced").mkdir()
        write(tmp_path)
        assert names(tmp_path) == [draft.name, f"{draft.stem}.replaced", "first", "zarr.json"]
    for other in (".first.partial", ".first.a.12-0123abcd.partial", ".firs.12-0123abcd.partial"):
        (tmp_path / other).mkdir()
    write(tmp_path)
    assert [name for name in names(tmp_path) if re.search(r"\d-\w{8}", name)] == [
        ".firs.12-0123abcd.partial",
        ".first.a.12-0123abcd.partial",
    ]


def test_finding_out_whether_a_store_can_be_written_leaves_nothing(tmp_path):
    path = tmp_path / "store"
    records.check_writable(path, "similarity")
    for n in range(10):
        try:
            with killed_before(n):
                records.check_writable(path, "similarity")
        except Killed:
            records.check_writable(path, "similarity")
            assert names(path) == ["zarr.json"]
        else:
            break
    assert n >= 2


# Claims


def test_a_dead_claim_is_dropped_and_a_living_one_stays(tmp_path):
    drop_dead(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with Holder(tmp_path / "a"):
        drop_dead(tmp_path / "a")
        assert (tmp_path / "a" / CLAIM).exists()
    assert (tmp_path / "a" / CLAIM).exists()
    drop_dead(tmp_path / "a")
    assert not (tmp_path / "a" / CLAIM).exists()


def test_a_lease_that_ended_is_dropped_and_a_living_one_stays(monkeypatch):
    place = store.storage.paths.as_place("memory://dropped")
    try:
        held = claim(place / "a")
        claims.drop_dead(place / "a")
        held.renew()
        held.forget()
        monkeypatch.setattr(claims, "LEASE_S", -1)
        drop_dead(place / "a")
        assert not (place / "a" / CLAIM).exists()
    finally:
        remove_tree(place)
