"""Claims: one writer at a time, refused at once, and nothing in its way that a death leaves."""

import fcntl
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from upath import UPath

import store
from store import ClaimedError, StoreLocationError, Writer
from store.storage import claims
from store.storage.claims import CLAIM, LEASE_S, claim, is_claimed
from store.storage.paths import remove_tree, walk_files
from store.zarrfiles.layout import crc32c
from tests.strategies import batches, coordinates, make_gram_meta, make_meta, make_rows

META = make_meta()
ROWS = make_rows(META)
ARRAY = f"{META.key.path}/activations"

HOLD = """
import sys
from pathlib import Path
from store.storage.claims import claim
held = claim(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
held.release()
print("released", flush=True)
sys.stdin.readline()
"""


class Holder:
    """Another process that holds a claim."""

    def __init__(self, folder, program=HOLD):
        root = Path(__file__).parent.parent
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder)],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "held\n"

    def release(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "released\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def open_writer(path, meta=META):
    return Writer.open(path, meta, *coordinates(meta))


def all_files(folder):
    return {p: (p.lstat().st_mtime_ns, p.lstat().st_ino) for p in folder.rglob("*")}


@pytest.fixture
def memory():
    """Return an address in memory that no other test uses."""
    place = UPath(f"memory://claims-{uuid.uuid4().hex}", use_listings_cache=False)
    yield place
    remove_tree(place)


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    """Return where a store may be made, local or not."""
    return tmp_path / "a.zarr" if request.param == "local" else request.getfixturevalue("memory")


def test_a_second_writer_is_refused_at_once_and_told_whose_turn_it_is(tmp_path):
    open_writer(tmp_path / "a.zarr").close()
    folder = tmp_path / "a.zarr" / ARRAY
    with Holder(folder) as other:
        begun = time.monotonic()
        message = f"{folder} is being written by process {other.process.pid}; wait for it"
        with pytest.raises(ClaimedError, match=re.escape(message)):
            open_writer(tmp_path / "a.zarr")
        assert time.monotonic() - begun < 10  # never for as long as the other one lives
        assert other.process.poll() is None


def test_a_second_writer_of_the_same_process_is_refused(place):
    with open_writer(place) as first:
        message = f"{place / ARRAY} is being written by another writer of this process; close it"
        with pytest.raises(ClaimedError, match=re.escape(message)):
            open_writer(place)
        first.append(ROWS[:4])
    with open_writer(place) as second:
        assert second.n_committed == 4


def test_other_taps_are_written_meanwhile(place):
    with open_writer(place), open_writer(place, make_meta("conv2")) as other:
        other.append(ROWS[:4])
    assert [each.n_committed for each in store.open(place).find()] == [0, 4]


def test_a_writer_that_was_killed_stands_in_nobodys_way(tmp_path):
    open_writer(tmp_path / "a.zarr").close()
    folder = tmp_path / "a.zarr" / ARRAY
    with Holder(folder) as other:
        assert is_claimed(folder)
        os.kill(other.process.pid, signal.SIGKILL)
        other.process.wait()
        assert (folder / CLAIM).exists()
        assert not is_claimed(folder)
        with open_writer(tmp_path / "a.zarr") as writer:
            writer.append(ROWS[:4])
    assert not (folder / CLAIM).exists()


def test_what_was_released_is_free(tmp_path):
    with Holder(tmp_path) as other:
        other.release()
        assert list(tmp_path.iterdir()) == []
        with claim(tmp_path):
            assert is_claimed(tmp_path)
        assert other.process.poll() is None


def test_a_whole_representation_is_free(place):
    writer = open_writer(place)
    for rows in batches(META, ROWS):
        writer.append(rows)
    assert not is_claimed(place / ARRAY)
    with open_writer(place) as other:
        assert other.complete


@pytest.mark.usefixtures("collected")
def test_a_writer_that_nobody_has_any_more_is_free(place):
    writer = open_writer(place)
    assert is_claimed(place / ARRAY)
    del writer
    gc.collect()
    assert not is_claimed(place / ARRAY)
    open_writer(place).close()


def test_a_closed_writer_writes_nothing(place):
    with open_writer(place) as writer:
        writer.append(ROWS[:4])
    with open_writer(place), pytest.raises(ClaimedError, match="no longer claimed by this writer"):
        writer.append(ROWS[4:8])
    assert store.open(place)[META.key].n_committed == 4


def test_releasing_twice_leaves_the_next_holder_alone(place):
    folder = place / ARRAY
    first = claim(folder)
    first.release()
    with claim(folder):
        first.release()
        assert is_claimed(folder)
    assert not is_claimed(folder)


def test_a_failed_opening_leaves_no_claim(place):
    open_writer(place).close()
    with pytest.raises(store.ConflictError):
        open_writer(place, make_meta(dtype="float16"))
    assert not is_claimed(place / ARRAY)
    assert not (place / ARRAY / CLAIM).exists()


def test_looking_changes_nothing(tmp_path):
    assert not is_claimed(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []
    with claim(tmp_path) as held:
        before = all_files(tmp_path)
        assert is_claimed(tmp_path)
        assert is_claimed(tmp_path)
        assert all_files(tmp_path) == before
        held.renew()
        with Holder(tmp_path / "other"):
            pass
        with pytest.raises(ClaimedError):
            claim(tmp_path)
    assert not is_claimed(tmp_path)
    assert not (tmp_path / CLAIM).exists()


def test_whoever_only_looks_stands_in_nobodys_way(tmp_path):
    (tmp_path / CLAIM).touch()
    looking = os.open(tmp_path / CLAIM, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)  # in the middle of is_claimed
    begun = threading.Timer(0.05, os.close, [looking])
    begun.start()
    with claim(tmp_path):
        assert is_claimed(tmp_path)
    begun.join()


def test_what_only_another_user_may_write_is_looked_at_all_the_same(tmp_path, monkeypatch):
    original = os.open

    def as_another_user(path, flags, *mode, **how):
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(13, "Permission denied")
        return original(path, flags, *mode, **how)

    with claim(tmp_path):
        monkeypatch.setattr(os, "open", as_another_user)
        assert is_claimed(tmp_path)
        message = f"{tmp_path / CLAIM} is in the way of writing (Permission denied); delete it"
        with pytest.raises(StoreLocationError, match=re.escape(message)):
            claim(tmp_path)


@pytest.mark.parametrize("target", ["file", "absent"])
def test_a_symbolic_link_is_not_followed(tmp_path, target):
    (tmp_path / "file").write_text("precious")
    folder = tmp_path / "a.zarr" / ARRAY
    folder.mkdir(parents=True)
    (folder / CLAIM).symlink_to(tmp_path / target)
    with pytest.raises(StoreLocationError, match=r"\.claim is in the way of writing \(Too many"):
        claim(folder)
    assert not is_claimed(folder)
    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "absent").exists()


def test_an_array_that_leads_elsewhere_is_neither_claimed_nor_cleared(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.tex").write_text("precious")
    folder = tmp_path / "a.zarr" / META.key.path
    open_writer(tmp_path / "a.zarr", make_meta("conv2")).close()
    folder.mkdir()
    (folder / "activations").symlink_to(outside)
    message = f"{folder / 'activations'} is a symbolic link, which no store makes"
    with pytest.raises(StoreLocationError, match=message):
        open_writer(tmp_path / "a.zarr")
    assert [p.name for p in outside.iterdir()] == ["thesis.tex"]


def test_many_threads_contend_and_one_wins(tmp_path):
    together, held, refused = threading.Barrier(16), [], []

    def contend():
        together.wait()
        try:
            held.append(claim(tmp_path))
        except ClaimedError:
            refused.append(1)

    for _ in range(20):
        threads = [threading.Thread(target=contend) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(held), len(refused)) == (1, 15)
        held.pop().release()
        refused.clear()


def test_holders_that_come_and_go_never_hold_at_once(tmp_path):
    # Whoever opened the file that is being removed must not take its lock for the claim.
    inside, n_held, most = [], 0, 0
    until = time.monotonic() + 0.5

    def come_and_go():
        nonlocal n_held, most
        while time.monotonic() < until:
            try:
                with claim(tmp_path / "deep" / "array"):
                    inside.append(1)
                    most = max(most, len(inside))
                    n_held += 1
                    inside.pop()
            except ClaimedError:
                pass

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert n_held > 20
    assert most == 1


def test_a_claim_waits_out_the_removal_of_its_folder(tmp_path, monkeypatch):
    # As ``store rm`` removes it, claimed, between opening the file and locking it.
    folder, rm = tmp_path / "array", claim(tmp_path / "array")
    original = fcntl.flock

    def remove_first(descriptor, how):
        monkeypatch.setattr(fcntl, "flock", original)
        remove_tree(folder)
        rm.release()
        original(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with claim(folder) as held:
        held.renew()
        with pytest.raises(ClaimedError):
            claim(folder)


def test_a_writer_whose_folder_was_removed_stops(tmp_path):
    with open_writer(tmp_path / "a.zarr") as first:
        first.append(ROWS[:4])
        remove_tree(tmp_path / "a.zarr" / META.key.path)
        with open_writer(tmp_path / "a.zarr") as second:
            with pytest.raises(ClaimedError, match="whose folder was removed; open another"):
                first.append(ROWS[4:8])
            second.append(ROWS[:4])
    assert store.open(tmp_path / "a.zarr")[META.key].read(0, 4).tobytes() == ROWS[:4].tobytes()


FORK = """
import os, sys
from pathlib import Path
from store.storage.claims import claim
held = claim(Path(sys.argv[1]))
if os.fork() == 0:
    held.release()
    try:
        held.renew()
    except Exception as error:
        open(sys.argv[1] + ".message", "w").write(str(error))
    print("held", flush=True)
sys.stdin.read()
"""


def test_a_forked_process_neither_gives_up_its_parents_claim_nor_keeps_it(tmp_path):
    folder = tmp_path / "array"
    with Holder(folder, FORK) as parent:
        assert is_claimed(folder)
        assert "no longer claimed" in (tmp_path / "array.message").read_text()
        os.kill(parent.process.pid, signal.SIGKILL)
        parent.process.wait()
        with claim(folder):
            pass


def read_lease(folder):
    return json.loads((folder / CLAIM).read_bytes())


def edit_lease(folder, **changes):
    (folder / CLAIM).write_bytes(json.dumps(read_lease(folder) | changes).encode())


@pytest.fixture
def elsewhere(monkeypatch):
    """Let this process be of another machine for a while."""

    def pretend(name):
        monkeypatch.setattr(claims, "_machine", lambda: name)

    return pretend


def test_a_lease_of_another_machine_is_respected_until_it_ends(memory, monkeypatch, elsewhere):
    elsewhere("far away")
    first = open_writer(memory)
    first.append(ROWS[:4])
    elsewhere("here")
    message = f"is being written by process {os.getpid()} of far away; wait for it, or if it has"
    with pytest.raises(ClaimedError, match=f"{message} died, for 10 minutes"):
        open_writer(memory)
    assert is_claimed(memory / ARRAY)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LEASE_S - 10)
    assert is_claimed(memory / ARRAY)
    monkeypatch.setattr(time, "time", lambda: now + LEASE_S + 10)
    assert not is_claimed(memory / ARRAY)
    with open_writer(memory) as second:
        second.append(ROWS[4:8])


def test_a_lease_is_renewed_at_commits(memory, monkeypatch):
    now = time.time()
    with open_writer(memory) as writer:
        for minutes, rows in ((4, ROWS[:4]), (8, ROWS[4:8])):
            monkeypatch.setattr(time, "time", lambda m=minutes: now + 60 * m)
            writer.append(rows)
        monkeypatch.setattr(time, "time", lambda: now + 60 * 17)
        assert is_claimed(memory / ARRAY)
        assert read_lease(memory / ARRAY)["until"] == now + 60 * 18


def test_a_lease_that_ended_is_kept_where_nobody_took_it(memory, monkeypatch):
    now = time.time()
    with open_writer(memory) as writer:
        monkeypatch.setattr(time, "time", lambda: now + 2 * LEASE_S)
        writer.append(ROWS[:4])
        assert is_claimed(memory / ARRAY)


def test_a_lease_of_a_process_that_died_here_is_free(memory):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    with open_writer(memory) as writer:
        edit_lease(memory / ARRAY, pid=process.pid)
        assert not is_claimed(memory / ARRAY)
        with open_writer(memory) as second:
            with pytest.raises(ClaimedError, match="written by another writer of this process"):
                writer.append(ROWS[:4])
            second.append(ROWS[:4])


def test_a_lease_of_a_process_that_lives_here_is_respected(memory):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with open_writer(memory):
            edit_lease(memory / ARRAY, pid=process.pid)
            with pytest.raises(ClaimedError, match=f"is being written by process {process.pid} of"):
                open_writer(memory)
        process.communicate(b"\n")


def steal(memory, elsewhere):
    """Let the lease end, and another machine take it and commit a minibatch."""
    edit_lease(memory / ARRAY, until=0.0)
    elsewhere("the thief's")
    thief = open_writer(memory)
    thief.append(ROWS[thief.n_committed :][:4])
    elsewhere("here")
    return thief


def test_a_stolen_lease_stops_the_first_writer_before_it_writes(memory, elsewhere):
    first = open_writer(memory)
    thief = steal(memory, elsewhere)
    before = {name: (memory / name).read_bytes() for name in memory_names(memory)}
    for _ in range(2):
        with pytest.raises(ClaimedError):
            first.append(-ROWS[:4])
        first.close()
    assert {name: (memory / name).read_bytes() for name in memory_names(memory)} == before
    thief.append(ROWS[4:8])
    thief.close()
    assert store.open(memory)[META.key].read(0, 8).tobytes() == ROWS[:8].tobytes()


def test_a_lease_stolen_while_a_chunk_is_written_stops_the_promise(memory, elsewhere, monkeypatch):
    first, thieves = open_writer(memory), []

    def slow(values):
        # Called on a chunk that has been written, before its promise.
        monkeypatch.setattr("store.arrays.writer.crc32c", crc32c)
        thieves.append(steal(memory, elsewhere))
        return crc32c(values)

    monkeypatch.setattr("store.arrays.writer.crc32c", slow)
    with pytest.raises(ClaimedError, match=r"is being written by process .* of the thief's"):
        first.append(-ROWS[:4])
    assert first.n_committed == 0
    thieves[0].append(ROWS[4:8])
    assert store.open(memory)[META.key].read(0, 8).tobytes() == ROWS[:8].tobytes()


def test_a_median_distance_needs_the_claim_too(memory, elsewhere):
    meta = make_gram_meta()
    with store.GramWriter.open(memory, meta, *coordinates(meta)) as writer:
        edit_lease(writer.place / "grams", until=0.0, owner="thief")
        with pytest.raises(ClaimedError):
            writer.set_median_distance(1.0)
    assert store.open_grams(memory)[meta.key].median_distance is None


def memory_names(place):
    return [name for name, _, _ in walk_files(place)]
