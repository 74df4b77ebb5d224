"""Stores at an address: in memory, and at moto's S3 server, which speaks S3 over HTTP."""

import importlib
import importlib.util
import json
import pickle
import secrets
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.config import conf
from upath import UPath

import store
from store import (
    ClaimedError,
    DamagedChunkError,
    GramWriter,
    StoreLocationError,
    UnknownRepresentationError,
    UnknownResultError,
    Writer,
)
from store.storage.claims import CLAIM, is_claimed
from store.storage.paths import as_place, remove_tree, walk_files, write_bytes
from store.storage.remote_errors import REACHED_S, check_reachable, each
from tests import s3
from tests.faults import write_again
from tests.strategies import batches, coordinates, make_gram_meta, make_grams, make_meta, make_rows
from tests.sweeps import slow
from tests.test_store_results import assert_same, make_full, make_result

META = make_meta("conv1", n_samples=10, batch_rows=4)


@pytest.fixture(scope="module")
def server():
    with s3.serving() as url:
        yield url


@pytest.fixture(params=["memory", "s3"])
def address(request, server):
    """Return the address of a store that is not there yet."""
    bucket = "s3://bucket" if request.param == "s3" else "memory://bucket"
    return f"{bucket}/{secrets.token_hex(4)}/taps.zarr"


@pytest.fixture
def bucket(server):
    """Return the address of a store at S3 alone."""
    return f"s3://bucket/{secrets.token_hex(4)}/taps.zarr"


def write(path, meta=META, n=None, seed=0):
    """Store a representation, or the first minibatches of it; return its rows."""
    rows = make_rows(meta, seed)
    with Writer.open(path, meta, *coordinates(meta)) as writer:
        for batch in batches(meta, rows)[len(writer.commits) : n]:
            writer.append(batch)
    return rows


def files(path):
    """Return the content of every file of a store, by its name."""
    place = as_place(path)
    return {name: (place / name).read_bytes() for name, _, _ in walk_files(place)}


def lease_of(path, meta=META):
    return as_place(path) / meta.key.path / "activations" / CLAIM


def test_what_was_written_is_read(address):
    rows = write(address)
    (found,) = store.open(address).find(tap="conv*")
    assert found.complete
    np.testing.assert_array_equal(found.read(0, 10), rows)
    np.testing.assert_array_equal(found.read(3, 9), rows[3:9])
    samples, labels = coordinates(META)
    np.testing.assert_array_equal(found.samples, samples)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.store_path == as_place(address)


def test_every_byte_is_what_a_local_store_has(address, tmp_path):
    metas = [META, make_meta("logits", n_samples=10, batch_rows=4, shape=(5,), tap_index=1)]
    for path in (address, tmp_path / "taps.zarr"):
        for meta in metas:
            write(path, meta)
    assert files(address) == files(tmp_path / "taps.zarr")


def test_writing_goes_on_where_it_was(address, tmp_path):
    write(address, n=1)
    (begun,) = store.open(address).find()
    assert (begun.n_committed, begun.complete) == (4, False)
    write(address)
    write(tmp_path / "taps.zarr")
    assert files(address) == files(tmp_path / "taps.zarr")


def test_a_creation_that_was_interrupted_begins_afresh(address, tmp_path):
    write(address, n=2)
    place = as_place(address) / META.key.path
    for name in ("zarr.json", "sample/c/0"):
        (place / name).unlink()
    assert store.open(address).find() == []
    write(address)
    write(tmp_path / "taps.zarr")
    assert files(address) == files(tmp_path / "taps.zarr")


def test_a_minibatch_is_written_again(address):
    write(address)
    other = make_rows(META, seed=1)
    with Writer.open(address, META, *coordinates(META)) as writer:
        write_again(writer, 4, other[4:8])
    (found,) = store.open(address).find()
    np.testing.assert_array_equal(found.read(4, 8), other[4:8])


def test_finding_narrows_by_facts(address):
    for checkpoint in ("init", "final"):
        for index, tap in enumerate(("conv2", "conv1")):
            facts = {"epoch": 5 * (checkpoint == "final")}
            meta = make_meta(tap, checkpoint=checkpoint, tap_index=index, attributes=facts)
            write(address, meta)
    opened = store.open(address)
    assert [str(key.tap) for key in opened.keys()] == ["conv2", "conv1"] * 2
    assert [tap.key.checkpoint for tap in opened.find(tap="conv1", epoch__ge=1)] == ["final"]
    assert [summary.n_taps for summary in opened.summaries()] == [2, 2]
    with pytest.raises(UnknownRepresentationError, match=r"taps\.zarr holds no .*; store it"):
        opened[make_meta("conv3").key]


def test_what_is_opened_can_be_sent_to_a_worker(address):
    rows = write(address)
    (found,) = store.open(address).find()
    sent = pickle.loads(pickle.dumps(found))
    for one in (sent, store.open(str(as_place(address)))[found.key]):
        np.testing.assert_array_equal(one.read(0, 10), rows)


def test_grams_are_kept(address, tmp_path):
    meta = make_gram_meta()
    Ks = make_grams(meta)
    for path in (address, tmp_path / "grams.zarr"):
        with GramWriter.open(path, meta, *coordinates(meta)) as writer:
            writer.set_median_distance(2.5)
            for K in Ks:
                writer.append(K)
    (found,) = store.open_grams(address).find()
    assert found.median_distance == 2.5
    for packed, K in zip(found.read(0, len(Ks)), Ks, strict=True):
        np.testing.assert_array_equal(store.unpack(packed), K)
    assert files(address) == files(tmp_path / "grams.zarr")


def test_results_are_written_listed_and_replaced(address, tmp_path):
    with pytest.raises(StoreLocationError, match="no store at"):
        store.list_results(address)
    assert not store.has_result(address, "full")
    for seed in (0, 1):
        wanted = make_full(seed)
        store.write_result(address, wanted)
        assert_same(store.read_result(address, wanted.name), wanted)
    wanted = make_result(wanted.name)  # of fewer arrays
    for path in (address, tmp_path / "local.zarr"):
        store.write_result(path, wanted)
    assert store.list_results(address) == [wanted.name]
    assert files(address) == files(tmp_path / "local.zarr")
    with pytest.raises(UnknownResultError, match="holds no result 'other'"):
        store.read_result(address, "other")


def test_a_damaged_result_is_noticed(address):
    store.write_result(address, make_full())
    file = as_place(address) / make_full().name / "values" / "c" / "0" / "0"
    flip(file)
    with pytest.raises(
        DamagedChunkError, match=r"^values of result .* is damaged .*compute it again"
    ):
        store.read_result(address, make_full().name)


def flip(file):
    content = bytearray(file.read_bytes())
    content[5] ^= 0x10
    write_bytes(file, bytes(content))


def truncate(file):
    write_bytes(file, file.read_bytes()[:-7])


def empty(file):
    write_bytes(file, b"")


def remove(file):
    file.unlink()


@pytest.mark.parametrize("damage", [flip, truncate, empty, remove])
def test_damage_is_found_and_says_where(address, damage):
    write(address)
    (found,) = store.open(address).find()
    damage(found.place / "activations" / "c" / "1" / "0" / "0" / "0")
    assert found.check(found.commits[0]) is None
    sentence = (
        r"^rows 4 to 7 of tap conv1 of run .* are damaged \(.*\); restore .*taps.zarr/.* from"
    )
    with pytest.raises(DamagedChunkError, match=sentence):
        found.read(0, 10)
    assert "rows 4 to 7" in str(found.check(found.commits[1]))


def test_swapped_chunks_are_found(address):
    write(address)
    (found,) = store.open(address).find()
    first, second = (found.place / "activations" / "c" / f"{i}/0/0/0" for i in (0, 1))
    contents = first.read_bytes(), second.read_bytes()
    write_bytes(first, contents[1])
    write_bytes(second, contents[0])
    assert [found.check(block) is None for block in found.commits] == [False, False, True]


@pytest.mark.parametrize("damage", [flip, remove])
def test_damaged_labels_are_found(address, damage):
    write(address)
    (found,) = store.open(address).find()
    damage(found.place / "label" / "c" / "0")
    with pytest.raises(DamagedChunkError, match=r"^labels of tap conv1"):
        _ = found.labels


def test_damaged_metadata_are_found(address):
    write(address)
    node = as_place(address) / META.key.path / "zarr.json"
    values = json.loads(node.read_bytes())
    values["attributes"]["allcnn_commits"][0]["digest"] = "crc32c:00000000"
    write_bytes(node, json.dumps(values).encode())
    with pytest.raises(DamagedChunkError, match=r"metadata of .* are damaged"):
        store.open(address).find()


def test_a_second_writer_is_refused_until_the_first_ends(address):
    with Writer.open(address, META, *coordinates(META)) as writer:
        writer.append(make_rows(META)[:4])
        assert is_claimed(lease_of(address).parent)
        with pytest.raises(ClaimedError, match="another writer of this process; close it first"):
            Writer.open(address, META, *coordinates(META))
    assert not lease_of(address).exists()
    write(address)


def write_lease(path, **changes):
    file = lease_of(path)
    values = {"owner": "x", "machine": "elsewhere", "pid": 7, "until": time.time() + 60} | changes
    write_bytes(file, json.dumps(values).encode())
    return file


def test_a_lease_of_another_machine_holds_until_it_has_run_out(address):
    write(address, n=1)
    write_lease(address)
    assert is_claimed(lease_of(address).parent)
    with pytest.raises(ClaimedError, match=r"by process 7 of elsewhere; .* for 10 minutes$"):
        write(address)
    write_lease(address, until=time.time() - 1)
    assert not is_claimed(lease_of(address).parent)
    write(address)
    assert store.open(address).find()[0].complete


# Such as the claim of a local store that was copied here after a kill; it would hold for ever.
@pytest.mark.parametrize(
    "content", [b"", b'{"owner": "x", "until": "a"}', slow(b"{"), slow(b"12345"), slow(b"[]")]
)
def test_a_claim_file_that_is_no_lease_holds_nothing(address, content):
    write(address, n=1)
    write_bytes(lease_of(address), content)
    assert not is_claimed(lease_of(address).parent)
    write(address)
    assert not lease_of(address).exists()


def test_a_writer_that_has_lost_its_lease_stops(address):
    write(address, n=1)
    rows = make_rows(META)
    writer = Writer.open(address, META, *coordinates(META))
    write_lease(address)
    before = files(address)
    with pytest.raises(ClaimedError):
        writer.append(rows[4:8])
    writer.close()
    assert files(address) == before  # the other's claim too


def test_contenders_for_a_new_representation_get_it_one_at_a_time(bucket):
    def contend(_):
        try:
            return Writer.open(bucket, META, *coordinates(META))
        except ClaimedError:
            return None

    write(bucket, make_meta("other"))
    held = [writer for writer in each(as_place(bucket), contend, range(8)) if writer is not None]
    assert len(held) == 1
    held[0].close()


def test_requests_are_few(bucket):
    """No request for each chunk but its own, and none that asks for sizes."""
    for checkpoint in ("init", "final"):
        for index in range(10):
            meta = make_meta(f"conv{index}", checkpoint=checkpoint, tap_index=index)
            with s3.counted() as creating:
                writer = Writer.open(bucket, meta, *coordinates(meta))
            with s3.counted() as appending:
                writer.append(make_rows(meta)[:4])
            with writer:
                for rows in batches(meta, make_rows(meta))[1:]:
                    writer.append(rows)
    assert creating.total() <= 26
    assert appending.total() <= 10
    with s3.counted() as finding:
        found = store.open(bucket).find()
    assert finding == {"list_objects_v2": 5, "get_object": 21}
    with s3.counted() as reading:
        found[0].read(0, 4)
        found[0].read(4, 10)
    assert reading == {"get_object": 5}  # two of metadata, three chunks


def test_options_of_the_user_are_kept(server):
    place = as_place(UPath("s3://bucket/x", anon=True))
    assert place.storage_options["anon"] is True
    assert (place / "y").storage_options["use_listings_cache"] is False
    assert as_place(place) is place
    assert as_place(UPath("file:///tmp/x")) == Path("/tmp/x")
    assert as_place("file:///tmp/x") == Path("/tmp/x")


def test_a_client_is_told_by_options_or_by_configuration(server, monkeypatch):
    """Neither needs the environment; Zarr's clients get the same."""
    options = {"endpoint_url": server, "key": "mine", "secret": "mine"}
    path = f"s3://bucket/{secrets.token_hex(4)}/taps.zarr"
    with s3.leading_to("http://127.0.0.1:1", AWS_ACCESS_KEY_ID=None):
        rows = write(UPath(path, **options))
        (found,) = pickle.loads(pickle.dumps(store.open(UPath(path, **options)))).find()
        np.testing.assert_array_equal(found.read(0, 10), rows)
        monkeypatch.setitem(conf, "s3", options | {"max_concurrency": 3})
        (found,) = store.open(path).find()
        np.testing.assert_array_equal(found.read(0, 10), rows)
        assert as_place(path).fs.max_concurrency == 3


def test_what_others_write_meanwhile_is_seen(bucket):
    opened = as_place(bucket)
    write(bucket, make_meta("conv1"))
    assert len(store.Store(opened).find()) == 1
    os_like = fsspec.filesystem("s3", skip_instance_cache=True)
    os_like.cp(f"{bucket}/{META.key.path}", f"{bucket}/copy", recursive=True)
    assert "copy" in [child.name for child in opened.iterdir()]
    remove_tree(opened / "copy")
    remove_tree(opened / "copy")  # of what is not there, nothing
    assert not (opened / "copy").exists()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("s3://nobody/store.zarr", r"there is no bucket 'nobody'; make it, or correct"),
        ("s3://", r"^s3:// names no bucket; write s3://BUCKET/FOLDER$"),
        ("s3:///store.zarr", r"names no bucket"),
        ("s3://B_ad!/x", r"Invalid bucket name"),
        ("nothing://x/y", r"^nothing://x/y cannot be reached: .*; give a folder, or an address"),
    ],
)
def test_an_address_where_nothing_can_be_kept_is_one_sentence(server, address, sentence):
    with pytest.raises(StoreLocationError, match=sentence) as caught:
        check_reachable(as_place(address))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_is_named(monkeypatch, protocol, package):
    # Not the mapping of that name, which stands in the package too.
    known = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(known, protocol, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    assert importlib.util.find_spec(package) is None
    wanted = rf"install its package with pip install {package}$"
    with pytest.raises(StoreLocationError, match=wanted):
        as_place(f"{protocol}://bucket/x")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"AWS_ACCESS_KEY_ID": None}, r"\(NoCredentialsError: Unable to locate credentials\)"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, r"Could not connect to the endpoint"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, r"\(ValueError: Invalid endpoint: nonsense\)"),
        ({"AWS_PROFILE": "nobody"}, r"ProfileNotFound"),
    ],
    ids=["credentials", "server", "endpoint", "profile"],
)
def test_what_keeps_a_client_out_is_one_sentence(bucket, server, changes, sentence):
    write(bucket)
    with s3.leading_to(server, **changes):
        for work in (check_reachable, store.open, store.has_store):
            with pytest.raises(StoreLocationError, match=sentence) as caught:
                work(as_place(bucket))
            assert str(caught.value).endswith("the network and the credentials")
            if "AWS_ENDPOINT_URL" in changes:
                break  # each waits some seconds for a server


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    assert REACHED_S <= 60
    monkeypatch.setattr("store.storage.remote_errors.REACHED_S", 1)
    began = time.monotonic()
    with s3.silent_server() as url, s3.leading_to(url):
        with pytest.raises(StoreLocationError, match="cannot be reached"):
            check_reachable(as_place("s3://bucket/x"))
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_server_that_goes_away_is_one_sentence_and_loses_nothing():
    with s3.serving() as url:
        address = "s3://bucket/gone.zarr"
        rows = write(address, n=1)
        assert rows.shape[0] == 10
        writer = Writer.open(address, META, *coordinates(META))
        (found,) = store.open(address).find()
    with s3.leading_to(url):
        with pytest.raises(StoreLocationError, match="cannot be reached"):
            found.read(0, 4)
        with pytest.raises(StoreLocationError, match=r"cannot be reached|cannot write rows 4 to 7"):
            writer.append(rows[4:8])
        assert writer.n_committed == 4
