"""Looking for damage: whatever is injected is named, by tap and rows, and nothing else is."""

import json
import re
import shutil
from dataclasses import replace

import fsspec
import numpy as np
import pytest
import zarr

import store
from store import GramWriter, SchemaError, StoreLocationError, Writer
from store.maintenance.damage import FOLDER, METADATA, MISSING
from store.maintenance.remove import remove
from store.maintenance.usage import measure
from store.maintenance.verify import verify
from store.model import schema
from store.storage import claims
from store.zarrfiles import layout
from tests.faults import chunk_files, flip_bit, kill_series, swap
from tests.strategies import (
    batches,
    coordinates,
    make_gram_meta,
    make_grams,
    make_meta,
    make_rows,
    make_similarity,
)
from tests.sweeps import slow

SPLIT_BYTES = 4 * 2 * 8 * 4
"""Two lines of a minibatch of 4 rows of ``wide``, in float32: its chunks are split in three."""

WIDE = (5, 2, 4)
N = 30
"""Rows: seven minibatches of 4, and one of 2 in a padded chunk."""

TAPS = [
    ("wide", WIDE, "float32", "none"),
    ("narrow", WIDE, "float16", "none"),
    ("logits", (7,), "float64", "none"),
    ("packed", WIDE, "float32", "zstd"),
    ("dense", (3, 6), "float16", "zstd"),
]
"""Chunks of one tap are split, those of the others whole; two are compressed."""

KINDS = ("activations", "grams", "similarity")
SET = f"digits-test-{N}-01234567"


def write(path, meta, seed, compression="none"):
    with Writer.open(path, meta, *coordinates(meta), compression=compression) as writer:
        for rows in batches(meta, make_rows(meta, seed)):
            writer.append(rows)


def write_grams(path, meta):
    with GramWriter.open(path, meta, *coordinates(meta)) as writer:
        for K in make_grams(meta, meta.tap_index):
            writer.append(K)


def write_result(path, name):
    rng = np.random.default_rng(0)
    keys = [make_meta(tap, run="a", n_samples=N).key for tap in ("one", "two", "three")]
    cross, own, other = rng.random((3, 2)), rng.random(3), rng.random(2)
    result = make_similarity(
        name, keys, keys[:2], cross, N, hsic=cross, hsic_rows=own, hsic_columns=other,
        errors=rng.random((3, 2)), minibatch_sizes=np.arange(3) + 4,
    )  # fmt: skip
    store.write_result(path, result)


@pytest.fixture(scope="module", autouse=True)
def _small_chunks():
    # Grams are read by the chunks that they were written in.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "MAX_CHUNK_BYTES", SPLIT_BYTES)
        patch.setattr(schema, "GRAM_CHUNK_BYTES", 2 * 4 * 21)
        yield


@pytest.fixture(scope="module")
def whole(_small_chunks, tmp_path_factory):
    """Return a folder with a store of each kind: several taps, dtypes, codecs and splits."""
    folder, how = tmp_path_factory.mktemp("whole"), {"n_samples": N, "batch_rows": 4}
    for index, (tap, shape, dtype, compression) in enumerate(TAPS):
        meta = make_meta(tap, shape=shape, dtype=dtype, tap_index=index, run="a", **how)
        write(folder / "activations", meta, index, compression)
    write(folder / "activations", make_meta("wide", shape=WIDE, run="b", **how), 9)
    for index, tap in enumerate(("wide", "logits")):
        sizes = (4,) * 6 + (6,)
        write_grams(folder / "grams", make_gram_meta(tap, sizes=sizes, run="a", tap_index=index))
    for name in ("first", "second"):
        write_result(folder / "similarity", name)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def look(folder, kind, **names):
    return [damage for checked in verify(folder / kind, kind, **names) for damage in checked.damage]


def where(damage):
    return damage.kind, damage.path, damage.part, damage.start, damage.stop


def test_nothing_is_found_where_nothing_is_damaged(whole):
    checked = [each for kind in KINDS for each in verify(whole / kind, kind)]
    assert [damage for each in checked for damage in each.damage] == []
    data = [each for each in checked if each.is_data]
    assert len(data) == 6 + 2 + 2
    n_bytes = sum(tap.meta.n_samples * row_bytes(tap.meta) for tap in stored(whole, "activations"))
    assert sum(each.n_bytes for each in data if each.kind == "activations") == n_bytes


def row_bytes(meta):
    return int(np.prod(meta.shape)) * np.dtype(meta.dtype).itemsize


def stored(folder, kind):
    return (
        store.open(folder / kind).find()
        if kind == "activations"
        else store.open_grams(folder / kind).find()
    )


# Chunks


class Chunk:
    """A chunk's file, and the damage that its loss is."""

    def __init__(self, kind, one, file):
        index = int(file.relative_to(one.place / one.form.array).parts[1])
        commit = one.commits[index]
        self.file = file
        self.where = (kind, one.key.path, one.form.units, commit.start, commit.stop)


def all_chunks(folder):
    return [
        Chunk(kind, one, file)
        for kind in ("activations", "grams")
        for one in stored(folder, kind)
        for file in chunk_files(one.place / one.form.array)
    ]


def flip(rng, chunk, _):
    content = bytearray(chunk.file.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    chunk.file.write_bytes(content)
    return {chunk.where}


def truncate(rng, chunk, _):
    content = chunk.file.read_bytes()
    chunk.file.write_bytes(content[: rng.integers(len(content))])
    return {chunk.where}


def lose(rng, chunk, _):
    chunk.file.unlink()
    return {chunk.where}


def exchange(rng, chunk, others):
    """Swap with a chunk of the same tap, else of any, that has other content."""
    content = chunk.file.read_bytes()
    different = [other for other in others if other.file.read_bytes() != content]
    near = [other for other in different if other.where[1] == chunk.where[1]]
    other = rng.choice(near if rng.integers(2) else different)
    swap(chunk.file, other.file)
    return {chunk.where, other.where}


@pytest.mark.parametrize("n", [15, slow(100)])
@pytest.mark.parametrize("injure", [flip, truncate, lose, exchange])
def test_injuries_are_named_exactly(folder, injure, n):
    rng = np.random.default_rng(0)
    chunks = all_chunks(folder)
    assert len(chunks) > 100
    for chunk in rng.permutation(chunks)[:n]:
        before = {each.file: each.file.read_bytes() for each in chunks}
        wanted = injure(rng, chunk, chunks)
        found = {
            where(damage) for kind in ("activations", "grams") for damage in look(folder, kind)
        }
        assert found == wanted
        for file, content in before.items():
            if not file.exists() or file.read_bytes() != content:
                file.write_bytes(content)


def test_many_injuries_at_once_are_all_named(folder):
    rng = np.random.default_rng(1)
    chunks, wanted = all_chunks(folder), set()
    for chunk in rng.permutation(chunks)[: len(chunks) // 3]:
        wanted |= flip(rng, chunk, chunks)
    found = [where(damage) for kind in ("activations", "grams") for damage in look(folder, kind)]
    assert set(found) == wanted
    assert len(found) == len(wanted)


def test_a_sentence_says_what_is_damaged_and_why(folder):
    tap, *_ = stored(folder, "activations")
    chunk_files(tap.place / "activations")[0].unlink()
    (damage,) = look(folder, "activations")
    assert str(damage).startswith(
        f"rows 0 to 3 of tap wide of run a, checkpoint final, on {SET} are damaged (the file "
    )
    assert str(damage).endswith("is missing)")
    flip_bit(chunk_files(stored(folder, "grams")[0].place / "grams")[1])
    (damage,) = look(folder, "grams")
    assert str(damage).startswith("minibatches 2 to 3 of the Grams linear-whole-4-float32-")


@pytest.mark.parametrize(
    ("path", "old", "new", "reason"),
    [
        ("", "{", "[", r"/activations is no Zarr v3 group"),
        (f"{SET}/a", "group", "array", "its node_type is 'array', not 'group'"),
        (f"{SET}/a/final/wide", "feedc0de", "feedc0df", "digest crc32c:.*, sealed crc32c:.*"),
        (f"{SET}/a/final/wide", "{", "[", "its zarr.json is unreadable: .*"),
        (f"{SET}/a/final/wide/label", "int32", "int16", "array 'label': data_type is 'int16', .*"),
        (f"{SET}/a/final/wide/label", "crc32c", "crc32d", "array 'label': no store of ours has .*"),
    ],
)
def test_a_reason_says_what_was_found_and_no_more(folder, path, old, new, reason):
    node = folder / "activations" / path / "zarr.json"
    node.write_text(node.read_text().replace(old, new, 1))
    (damage,) = look(folder, "activations")
    owner = f"tap wide of run a, checkpoint final, on {SET}" if "final" in path else path
    assert re.fullmatch(reason if path else f".*{reason}", damage.reason)
    assert str(damage).endswith(f" are damaged ({damage.reason})")
    assert (owner or "the store of activations") in str(damage)


def test_a_minibatch_at_a_time_is_read(whole, monkeypatch):
    lengths, check = [], store.Representation.check

    def spy(self, block):
        lengths.append(block.stop - block.start)
        return check(self, block)

    monkeypatch.setattr(store.Representation, "check", spy)
    look(whole, "activations")
    assert set(lengths) == {2, 4}


def test_rows_that_are_not_committed_are_not_damaged(folder):
    tap = stored(folder, "activations")[0]
    attributes = json.loads((tap.place / "zarr.json").read_text())["attributes"]
    attributes["allcnn_commits"] = attributes["allcnn_commits"][:2]
    store.zarrfiles.metadata_files.write_attributes(tap.place, attributes)
    for file in chunk_files(tap.place / "activations")[-2:]:
        flip_bit(file)
    assert look(folder, "activations") == []


def unfinished(folder, kind):
    found = [one for checked in verify(folder / kind, kind) for one in checked.unfinished]
    return [(one.path.removeprefix(f"{SET}/"), one.reason) for one in found]


def test_what_is_unfinished_is_told_and_is_no_damage(folder):
    assert unfinished(folder, "activations") == unfinished(folder, "grams") == []
    meta = make_meta("late", run="c", n_samples=N, batch_rows=4, n_taps=3)
    how = coordinates(meta)
    Writer.open(folder / "activations", meta, *how).close()
    nothing_yet = [("c/final/late", "0 of 30 rows"), ("c/final", "taps are missing: 2")]
    assert unfinished(folder, "activations") == nothing_yet
    with Writer.open(folder / "activations", meta, *how) as writer:
        writer.append(make_rows(meta)[:4])
        at_work = ("c/final/late", "4 of 30 rows, and its writer is at work")
        assert unfinished(folder, "activations")[0] == at_work
    group = folder / "activations" / meta.key.path
    shutil.rmtree(group / "activations" / "c")
    (group / "zarr.json").unlink()
    assert unfinished(folder, "activations") == [("c/final/late", "begun, or removed in part")]
    assert look(folder, "activations") == []


@pytest.mark.parametrize("kind", ["activations", "grams"])
def test_what_an_interrupted_repair_took_back_is_named_until_it_is_written(folder, kind):
    one = stored(folder, kind)[0]
    last = one.commits[-1]
    how = folder / kind, one.meta, one.samples, one.labels
    with (Writer if kind == "activations" else GramWriter).open(*how) as writer:
        writer.take_back([0, last.start])
        # A repair is at work.
        assert look(folder, kind) == []
        assert ", and its writer is at work" in unfinished(folder, kind)[0][1]
    found = look(folder, kind)
    units = one.form.units
    wanted = [(kind, one.key.path, units, c.start, c.stop) for c in (one.commits[0], last)]
    assert [where(damage) for damage in found] == wanted
    assert str(found[0]).endswith(" are damaged (their repair was interrupted)")
    assert unfinished(folder, kind) == []
    # What is kept behind a gap is read as well.
    kept = chunk_files(one.place / one.form.array)
    flip_bit(kept[len(kept) // 2])
    assert len(look(folder, kind)) == 3


def write_three(folder, checkpoint="final", source=None, taps=("one", "two", "three")):
    """Write a network of three taps, and its Grams; ``source`` tells that these came from it."""
    how = {"run": "d", "checkpoint": checkpoint, "n_samples": N, "n_taps": 3}
    for tap in taps:
        index = ("one", "two", "three").index(tap)
        write(folder / "activations", make_meta(tap, batch_rows=4, tap_index=index, **how), index)
        meta = make_gram_meta(tap, tap_index=index, sizes=(4,) * 6 + (6,), run="d", n_taps=3)
        meta = replace(meta, key=replace(meta.key, of=replace(meta.key.of, checkpoint=checkpoint)))
        with GramWriter.open(folder / "grams", meta, *coordinates(meta), source=source) as writer:
            for K in make_grams(meta, index):
                writer.append(K)


def lost(folder, kind, **how):
    found = [one for checked in verify(folder / kind, kind, **how) for one in checked.damage]
    return [(one.path.removeprefix(f"{SET}/d/"), one.part) for one in found]


@pytest.mark.parametrize("kind", ["activations", "grams"])
def test_a_tap_whose_folder_is_gone_is_damage(folder, kind):
    write_three(folder)
    assert lost(folder, kind) == []
    shutil.rmtree(folder / kind / SET / "d/final/three")
    (nameless,) = look(folder, kind)
    assert where(nameless)[1:3] == (f"{SET}/d/final", MISSING)
    assert str(nameless).endswith("lacks taps (1 of them, whose names are not known)")
    # The run's settings tell them.
    taps = {"d": ("one", "two", "three")}
    assert lost(folder, kind, taps_of=taps.get) == [("final/three", MISSING)]
    # So do the taps of its other checkpoints.
    write_three(folder, "init")
    (named,) = look(folder, kind)
    assert where(named)[1:3] == (f"{SET}/d/final/three", MISSING)
    assert str(named) == f"tap three of run d, checkpoint final, on {SET} is missing (no folder)"
    shutil.rmtree(folder / kind / SET / "d/final/one")
    assert lost(folder, kind) == [("final/one", MISSING), ("final/three", MISSING)]
    assert unfinished(folder, kind) == []


def test_grams_from_activations_may_be_wanted_of_some_taps_alone(folder):
    write_three(folder, source="crc32c:01234567")
    shutil.rmtree(folder / "grams" / SET / "d/final/three")
    assert look(folder, "grams") == unfinished(folder, "grams") == []


def remove_all(folder, kind, tap=""):
    for each in measure(folder / kind, kind, f"{SET}/d/final/{tap}".rstrip("/")):
        if not each.is_file:
            remove(folder / kind, each)


@pytest.mark.parametrize("kind", ["activations", "grams"])
def test_a_tap_that_was_removed_on_purpose_is_no_damage(folder, kind):
    write_three(folder)
    remove_all(folder, kind, "three")
    assert look(folder, kind) == []
    assert unfinished(folder, kind) == [("d/final", "taps are missing: 1")]
    # Written again and lost, it is.
    shutil.rmtree(folder / {"activations": "grams", "grams": "activations"}[kind])
    write_three(folder, taps=("three",))
    assert look(folder, kind) == unfinished(folder, kind) == []
    shutil.rmtree(folder / kind / SET / "d/final/three")
    assert [where(each)[2] for each in look(folder, kind)] == [MISSING]
    # Nothing is left of a network that went as a whole.
    remove_all(folder, kind)
    assert not (folder / kind / SET / "d").exists()


def test_taps_that_a_killed_writer_had_not_made_are_no_damage(folder):
    meta = make_meta("one", run="d", n_samples=N, batch_rows=4, n_taps=3)
    with Writer.open(folder / "activations", meta, *coordinates(meta)) as writer:
        writer.append(make_rows(meta)[:4])
    assert look(folder, "activations") == []
    assert unfinished(folder, "activations")[-1] == ("d/final", "taps are missing: 2")


def test_only_what_fits_is_looked_at(folder):
    for chunk in all_chunks(folder):
        flip_bit(chunk.file)
    found = look(folder, "activations", run="a", tap="[nl]*")
    assert {damage.path.split("/")[3] for damage in found} == {"narrow", "logits"}
    assert {damage.path.split("/")[1] for damage in found} == {"a"}
    assert {damage.path.split("/")[3] for damage in look(folder, "grams", tap="log*")} == {"logits"}
    assert look(folder, "grams", checkpoint="init") == []
    assert look(folder, "activations", sample_set="cifar10-*") == []
    shutil.rmtree(folder / "similarity/first/values")
    assert {damage.path for damage in look(folder, "similarity", tap="thr*")} == {"first"}
    assert look(folder, "similarity", tap="four") == []


# Coordinates and metadata


@pytest.mark.parametrize("kind", ["activations", "grams"])
@pytest.mark.parametrize("name", ["sample", "label"])
@pytest.mark.parametrize("injury", ["flip", "lose", "cut"])
def test_damaged_coordinates_are_named(folder, kind, name, injury):
    one = stored(folder, kind)[1]
    (file,) = chunk_files(one.place / name)
    if injury == "flip":
        flip_bit(file)
    elif injury == "lose":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-5])
    (damage,) = look(folder, kind)
    assert where(damage) == (kind, one.key.path, f"{name}s", None, None)


@pytest.mark.parametrize("n", [25, slow(100)])
@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits_of_metadata_are_named(folder, kind, n):
    """Of the root, of the folders above a representation, of its group, and of its arrays."""
    rng = np.random.default_rng(2)
    nodes = sorted((folder / kind).rglob("zarr.json"))
    places = [(node, rng.integers(node.stat().st_size)) for node in rng.choice(nodes, n)]
    assert_flips_are_named(folder, kind, places, rng)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_flipped_bits_of_metadata_are_named(folder, kind):
    for one in stored(folder, "activations")[1:]:  # all alike
        shutil.rmtree(one.place)
    shutil.rmtree(folder / "activations" / SET / "b")
    rng = np.random.default_rng(3)
    nodes = sorted((folder / kind).rglob("zarr.json"))
    places = [(node, rng.integers(node.stat().st_size)) for node in rng.choice(nodes, 1000)]
    assert_flips_are_named(folder, kind, places, rng)


def assert_flips_are_named(folder, kind, places, rng):
    for node, position in places:
        content = node.read_bytes()
        injured = bytearray(content)
        injured[position] ^= 1 << rng.integers(8)
        node.write_bytes(injured)
        owner = owner_of(node, folder / kind, kind)
        assert named(folder, kind) == {owner}, f"{node}: {injured.decode(errors='replace')}"
        node.write_bytes(content)


def owner_of(node, root, kind):
    """Return the folder that damage to some metadata is told of."""
    parts = node.parent.relative_to(root).parts
    depth = {"activations": 4, "grams": 5, "similarity": 1}[kind]
    return "/".join(parts[:depth])


def named(folder, kind):
    try:
        return {damage.path for damage in look(folder, kind)}
    except SchemaError:  # a newer version, of which nothing can be said
        return {""}


@pytest.mark.parametrize("kind", KINDS)
def test_lost_metadata_are_named(folder, kind):
    for node in sorted((folder / kind).rglob("zarr.json")):
        content = node.read_bytes()
        node.unlink()
        assert named(folder, kind) == {owner_of(node, folder / kind, kind)}, node
        node.write_bytes(content)


def test_a_seal_that_is_gone_is_named(folder):
    for one in (stored(folder, "activations")[0], stored(folder, "grams")[0]):
        node = json.loads((one.place / "zarr.json").read_text())
        del node["attributes"]["allcnn_seal"]
        (one.place / "zarr.json").write_text(json.dumps(node))
        (damage,) = look(folder, one.form.kind)
        assert where(damage)[1:] == (one.key.path, METADATA, None, None)
        assert damage.reason == "it has lost its seal"


def test_one_damaged_group_hides_no_other(folder):
    root = folder / "activations"
    first, second, third, *_ = stored(folder, "activations")
    (root / "zarr.json").write_text("{")
    (root / SET / "zarr.json").write_text("[]")
    (first.place / "zarr.json").write_text("")
    (second.place / "activations/zarr.json").write_text("{}")
    flip_bit(chunk_files(third.place / "activations")[2])
    found = [where(damage)[1:] for damage in look(folder, "activations")]
    assert found == [
        ("", METADATA, None, None),
        (third.key.path, "rows", 8, 12),
        (second.key.path, METADATA, None, None),
        (first.key.path, METADATA, None, None),
        (SET, METADATA, None, None),
    ]


# What is no damage, and what is no store of ours


@pytest.mark.slow
def test_nothing_that_a_kill_leaves_is_damage(tmp_path):
    meta = make_meta(n_samples=6, batch_rows=4)

    def work(path):
        write(path, meta, 0)

    n_states = 0
    for path in kill_series(work, tmp_path, tmp_path / "nothing"):
        n_states += 1
        if (path / "zarr.json").exists():
            assert [each for one in verify(path, "activations") for each in one.damage] == []
    assert n_states > 10


def test_a_removal_that_was_killed_is_no_damage(folder):
    tap, *_ = stored(folder, "activations")
    claims.claim(tap.place / "activations").__del__()  # as a kill ends it: the file stays
    assert (tap.place / "activations" / claims.CLAIM).exists()
    assert look(folder, "activations") == []
    (tap.place / "zarr.json").unlink()
    assert look(folder, "activations") == []


@pytest.mark.parametrize(
    ("link", "part", "start"),
    [
        ("activations/c/1/0/0/0", "rows", 4),
        ("label", "labels", None),
        ("activations", "rows", 0),
        ("", METADATA, None),
        ("zarr.json", METADATA, None),
    ],
)
def test_links_that_lead_outside_are_named_and_hide_nothing(folder, tmp_path, link, part, start):
    first, second, *_ = stored(folder, "activations")
    flip_bit(chunk_files(second.place / "activations")[0])
    outside = tmp_path / "outside"
    (first.place / link).rename(outside)
    (first.place / link).symlink_to(outside)
    found = look(folder, "activations")
    mine = [each for each in found if each.path == first.key.path]
    assert (mine[0].part, mine[0].start) == (part, start)
    assert " leads by a symbolic link to " in mine[0].reason
    assert [each.path for each in found if each not in mine] == [second.key.path]


def test_hidden_folders_and_files_beside_are_no_damage(folder):
    for kind in KINDS:
        (folder / kind / ".DS_Store").mkdir()
        (folder / kind / "zarr.json.0123.partial").write_text("{")
    first, second, *_ = stored(folder, "activations")
    (first.place / "zarr.json.0123.partial").write_text("{")
    (second.place.parent / "notes.txt").write_text("mine")
    assert [damage for kind in KINDS for damage in look(folder, kind)] == []


@pytest.mark.parametrize(
    "name", ["notes", f"{SET}/notes", f"{SET}/a/final/notes", f"{SET}/a/my notes", "résumé"]
)
def test_folders_that_no_store_wrote_are_named(folder, name):
    (folder / "activations" / name).mkdir()
    if name != "résumé" and " " not in name:
        assert look(folder, "activations") == []  # empty, as a kill may leave one
    (folder / "activations" / name / "readme.txt").write_text("mine")
    (damage,) = look(folder, "activations")
    assert (damage.path, damage.part) == (name, FOLDER)
    assert " was not written by a store (" in str(damage)


def test_a_group_of_others_is_named(folder):
    place = folder / "activations" / SET / "a/final/theirs"
    zarr.create_group(place, attributes={"by": "others"}).create_array("x", data=np.zeros(3))
    (damage,) = look(folder, "activations")
    assert where(damage) == ("activations", f"{SET}/a/final/theirs", FOLDER, None, None)


def test_attributes_of_others_are_no_damage(folder):
    for node in (folder / "activations").rglob("zarr.json"):
        values = json.loads(node.read_text())
        values["attributes"]["note"] = {"by": "me"}
        node.write_text(json.dumps(values))
    assert look(folder, "activations") == []


def test_an_array_that_others_wrote_again_in_other_chunks_is_no_damage(folder):
    tap = stored(folder, "activations")[0]
    rows = tap.read(0, N)
    node = json.loads((tap.place / "activations/zarr.json").read_text())
    group = zarr.open_group(tap.place, mode="r+")
    array = group.create_array(
        "activations", data=rows, overwrite=True, chunks=(2, 5, 2, 4), filters=None,
        compressors=zarr.codecs.Crc32cCodec(), fill_value=np.nan,
        dimension_names=node["dimension_names"], attributes=node["attributes"],
    )  # fmt: skip
    assert look(folder, "activations") == []
    flip_bit(chunk_files(tap.place / "activations")[0])
    assert [where(each)[2:] for each in look(folder, "activations")] == [("rows", 0, 4)]
    array.store.close()


def test_changed_chunk_sizes_are_damaged_metadata(folder):
    for one in (*stored(folder, "activations"), *stored(folder, "grams")):
        node = one.place / one.form.array / "zarr.json"
        content = node.read_text()
        values = json.loads(content)
        values["chunk_grid"]["configuration"]["chunk_shape"][0] += 1
        node.write_text(json.dumps(values))
        (damage,) = look(folder, one.form.kind)
        assert where(damage)[1:] == (one.key.path, METADATA, None, None)
        assert "chunks are [" in damage.reason
        node.write_text(content)


def test_a_first_version_without_seals_is_no_damage(folder):
    for kind in ("activations", "grams"):
        for one in stored(folder, kind):
            node = json.loads((one.place / "zarr.json").read_text())
            del node["attributes"]["allcnn_seal"]
            del node["attributes"][one.form.mark]["attributes"]
            (one.place / "zarr.json").write_text(json.dumps(node))
        assert look(folder, kind) == []


def test_a_newer_store_and_one_of_others_are_errors(folder, tmp_path):
    with pytest.raises(StoreLocationError, match=r"no store at .*nowhere"):
        list(verify(tmp_path / "nowhere", "activations"))
    zarr.create_group(tmp_path / "theirs")
    with pytest.raises(SchemaError, match="this package did not write"):
        list(verify(tmp_path / "theirs", "activations"))
    with pytest.raises(SchemaError, match="is a store of grams; give a store of activations"):
        list(verify(folder / "grams", "activations"))
    node = folder / "activations/zarr.json"
    version = f'"schema_version": {store.SCHEMA_VERSION}'
    assert version in node.read_text()
    node.write_text(node.read_text().replace(version, '"schema_version": 9'))
    with pytest.raises(SchemaError, match=r"has schema version 9.* install a newer one"):
        list(verify(folder / "activations", "activations"))


@pytest.mark.parametrize("kind", KINDS)
def test_damage_at_an_address_is_named(folder, kind):
    fs, root = fsspec.filesystem("memory"), f"/verify-{kind}"
    fs.put(str(folder / kind), root, recursive=True)
    address = f"memory:/{root}"
    assert [each for one in verify(address, kind) for each in one.damage] == []
    wanted = set()
    for name in fs.find(root):
        if "/c/" in name and name.endswith(("activations/c/2/0/0/0", "grams/c/1/0", "hsic/c/0/0")):
            fs.pipe_file(name, fs.cat_file(name)[:-3])
            wanted.add(name.removeprefix(f"{root}/").rpartition("/c/")[0].rpartition("/")[0])
    found = [each for one in verify(address, kind) for each in one.damage]
    assert {each.path for each in found} == wanted
    assert wanted
    fs.rm(root, recursive=True)


# Results


def test_each_damaged_array_of_a_result_is_named(folder):
    result = folder / "similarity/first"
    for name in sorted(path.name for path in result.iterdir() if path.is_dir()):
        content = {path: path.read_bytes() for path in (result / name).rglob("*") if path.is_file()}
        for injure in ("lose", "cut", "foreign"):
            (file,) = chunk_files(result / name)
            if injure == "lose":
                file.unlink()
            elif injure == "cut":
                file.write_bytes(file.read_bytes()[:-1])
            else:
                file.write_bytes(b"x" * 40)
            (damage,) = look(folder, "similarity")
            assert where(damage) == ("similarity", "first", name, None, None)
            assert str(damage).startswith(f"{name} of result first is damaged (")
            for path, before in content.items():
                path.write_bytes(before)


def test_swapped_arrays_of_results_are_named(folder):
    first, second = (chunk_files(folder / "similarity/first" / n)[0] for n in ("values", "errors"))
    swap(first, second)
    assert {damage.part for damage in look(folder, "similarity")} == {"values", "errors"}


def test_drafts_of_results_are_no_damage(folder):
    shutil.copytree(folder / "similarity/first", folder / "similarity/.third.partial")
    (folder / "similarity/.third.partial/zarr.json").unlink()
    assert look(folder, "similarity") == []
