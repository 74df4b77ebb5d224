"""A reader that knows docs/layout.md, the standard library and nothing else reads every store."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numcodecs import Zstd

from store import (
    Commit,
    GramKey,
    GramMeta,
    ProbeResult,
    RepresentationMeta,
    SampleSet,
    SimilarityResult,
    Writer,
)
from store.model.names import tap_folder
from tests import plain_reader
from tests.data import make_stores
from tests.data.make_stores import LABELS, RUN, SAMPLES, TAPS, UNFINISHED
from tests.faults import chunk_files, flip_bit, swap
from tests.plain_reader import DamageError, read_store
from tests.strategies import NAMES, REAL_NAMES, batches, coordinates, make_meta, make_rows
from tests.test_store_results import FORMER
from tests.test_store_versions import FIXTURE


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the stores of version 1, and the same as they are written now."""
    now = tmp_path_factory.mktemp("now")
    # The labels of version 1's store differ on one sample set, which is refused by now.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("store.arrays.writer.check_like_others", lambda *_: None)
        make_stores.main(now)
    return {"of version 1": FIXTURE, "of today": now}


BOTH = pytest.mark.parametrize("age", ["of version 1", "of today"])


@BOTH
def test_it_runs_without_any_package(stores, age):
    # -S leaves out site-packages, -I the working directory.
    command = [sys.executable, "-I", "-S", plain_reader.__file__, str(stores[age])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {kind: len(found) for kind, found in json.loads(done.stdout).items()} == {
        "activations": 5,
        "grams": 1,
        "similarity": 1,
    }


@BOTH
@pytest.mark.parametrize("key", TAPS)
def test_it_reads_activations(stores, age, key):
    rows = make_stores.activations(*key)[: 8 if key == UNFINISHED else 10]
    found = activations(stores[age])[make_stores.meta(*key).key.path]
    assert found == {
        "shape": list(rows.shape),
        "complete": key != UNFINISHED,
        "values": rows.ravel().tolist(),
        "samples": SAMPLES.tolist(),
        "labels": LABELS[key[0]].tolist(),
    }


def test_it_reads_float64(tmp_path):
    meta = make_meta(dtype="float64")
    rows = make_rows(meta)
    with Writer.open(tmp_path / "activations.zarr", meta, *coordinates(meta)) as writer:
        for batch in batches(meta, rows):
            writer.append(batch)
    assert activations(tmp_path)[meta.key.path]["values"] == rows.ravel().tolist()


@BOTH
def test_it_reads_grams(stores, age):
    found = read_store(stores[age] / "grams.zarr", "grams", {})[make_stores.gram_meta().key.path]
    assert found["grams"] == [K.tolist() for K in make_stores.grams()]
    wanted = None if age == "of version 1" else make_stores.MEDIAN_DISTANCE
    assert found["median_distance"] == wanted
    assert found["samples"] == SAMPLES.tolist()


@BOTH
def test_it_reads_results(stores, age):
    found = read_store(stores[age] / "similarity.zarr", "similarity", {})["taps"]
    wanted = make_stores.result()
    assert found["record"]["rows"] == [key.path for key in wanted.rows]
    for name, values in found["arrays"].items():
        now = name if age == "of today" else NOW.get(name, name)
        np.testing.assert_array_equal(values, wanted.arrays[now].ravel())
    assert len(found["arrays"]) == len(wanted.arrays)


NOW = {former: name for name, former in FORMER.items()}
"""Names of today by those that arrays had until schema 3."""


def test_it_finds_every_damaged_byte_of_the_rows(stores, tmp_path):
    array = one_tap(stores["of today"], tmp_path)
    for file in chunk_files(array):
        kept = file.read_bytes()
        for offset in range(len(kept)):
            flip_bit(file, offset)
            with pytest.raises(DamageError, match="wrong checksum"):
                activations(tmp_path)
        file.write_bytes(kept)


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"")])
def test_it_finds_missing_and_empty_chunks(stores, tmp_path, damage):
    damage(chunk_files(one_tap(stores["of today"], tmp_path))[0])
    with pytest.raises(DamageError):
        activations(tmp_path)


def test_it_finds_swapped_chunks(stores, tmp_path):
    swap(*chunk_files(one_tap(stores["of today"], tmp_path))[:2])
    with pytest.raises(DamageError, match="not what was written"):
        activations(tmp_path)


def test_it_finds_changed_metadata(stores, tmp_path):
    node = one_tap(stores["of today"], tmp_path).with_name("zarr.json")
    node.write_text(node.read_text().replace('"tap_index": 0', '"tap_index": 1'))
    with pytest.raises(DamageError, match="metadata"):
        activations(tmp_path)


def test_it_reads_what_is_compressed_with_any_decoder_of_zstd(tmp_path):
    meta = make_stores.meta(*UNFINISHED)
    rows = make_stores.activations(*UNFINISHED)
    path = tmp_path / "activations.zarr"
    with Writer.open(path, meta, *coordinates(meta), compression="zstd") as writer:
        for batch in batches(meta, rows):
            writer.append(batch)
    found = read_store(path, "activations", {"zstd": Zstd().decode})[meta.key.path]
    assert found["values"] == rows.ravel().tolist()


def test_it_reads_taps_of_any_name(tmp_path):
    names = [*REAL_NAMES, "*", "..", "層/" * 60, "\U0001f642" * 200]
    metas = {name: make_meta(name, tap_index=k) for k, name in enumerate(names)}
    for name, meta in metas.items():
        with Writer.open(tmp_path / "activations.zarr", meta, *coordinates(meta)) as writer:
            for batch in batches(meta, make_rows(meta, len(name))):
                writer.append(batch)
    found = activations(tmp_path)
    assert found.keys() == {f"{make_meta().sample_set.name}/{RUN}/final/{name}" for name in names}
    for name, meta in metas.items():
        values = make_rows(meta, len(name)).ravel().tolist()
        assert found[meta.key.text]["values"] == values


def test_the_page_shows_how_folders_are_called():
    page = Path(__file__).parents[1].joinpath("docs", "layout.md").read_text("utf-8")
    table = page.partition("| name | folder |")[2].partition("\n\n")[0]
    shown = dict(re.findall(r"\| `(.+?)` \| `(.+?)` \|", table))
    assert len(shown) == 6
    assert {name: tap_folder(name) for name in shown} == shown


@given(NAMES)
def test_it_finds_the_folder_of_every_name(name):
    assert plain_reader.folder_of(name) == tap_folder(name)


@pytest.mark.parametrize(
    ("kind", "attribute"),
    [
        ("activations", "allcnn_commits"),
        ("activations", "allcnn_coordinates"),
        ("grams", "allcnn_commits"),
        ("grams", "allcnn_coordinates"),
        ("similarity", "allcnn_digests"),
    ],
)
def test_it_compares_every_digest(tmp_path, kind, attribute):
    # Of version 1, where no seal is in the way.
    root = Path(shutil.copytree(FIXTURE / f"{kind}.zarr", tmp_path / "copy"))
    texts = {file: file.read_text() for file in root.rglob("zarr.json")}
    file, text = next((file, text) for file, text in texts.items() if attribute in text)
    for found in re.finditer("crc32c:", text[text.index(attribute) :].partition("]")[0]):
        place = text.index(attribute) + found.end()
        file.write_text(f"{text[:place]}{'1' if text[place] == '0' else '0'}{text[place + 1 :]}")
        with pytest.raises(DamageError, match="not what was written"):
            read_store(root, kind, {})


@pytest.mark.parametrize(
    "described",
    [SampleSet, RepresentationMeta, GramKey, GramMeta, Commit, SimilarityResult, ProbeResult],
)
def test_the_page_names_every_field(described):
    page = Path(__file__).parents[1].joinpath("docs", "layout.md").read_text("utf-8")
    # In tables and sentences as `name`, in records as "name".
    named = set(re.findall(r"[`\"](\w+)[`\"]", page))
    assert {field.name for field in fields(described)} <= named


def one_tap(stores: Path, folder: Path) -> Path:
    """Copy the activations, and return the array of the tap whose minibatches are split."""
    shutil.copytree(stores / "activations.zarr", folder / "activations.zarr")
    return (
        folder / "activations.zarr" / make_stores.meta(*next(iter(TAPS))).key.path / "activations"
    )


def activations(folder: Path) -> dict[str, Any]:
    return read_store(folder / "activations.zarr", "activations", {})
