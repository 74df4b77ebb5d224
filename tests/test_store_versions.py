"""Older versions: what `tests/data/make_stores.py` wrote then, opened, read and finished now."""

import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import store
from store import SCHEMA_VERSION, GramWriter, SchemaError, SimilarityResult, Writer
from store.zarrfiles.layout import STORE_MARK
from tests.data import make_stores
from tests.data.make_stores import FOREIGN, LABELS, RUN, SAMPLE_SET, SAMPLES, TAPS, UNFINISHED
from tests.strategies import batches, coordinates, make_meta, make_rows
from tests.test_store_results import FORMER

FIXTURE = Path(make_stores.__file__).with_name("store-v1")
ROOTS = {
    "activations.zarr": store.open,
    "grams.zarr": store.open_grams,
    "similarity.zarr": store.list_results,
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a copy of the stores of version 1, to write into."""
    return Path(shutil.copytree(FIXTURE, tmp_path / "old"))


def version_of(path: Path) -> int:
    return json.loads((path / "zarr.json").read_text())["attributes"][STORE_MARK]["schema_version"]


def set_version(path: Path, version: int) -> None:
    described = json.loads((path / "zarr.json").read_text())
    described["attributes"][STORE_MARK]["schema_version"] = version
    (path / "zarr.json").write_text(json.dumps(described))


def assert_bit_equal(found: np.ndarray, wanted: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert found.tobytes() == wanted.tobytes()


def assert_same_result(found: SimilarityResult, wanted: SimilarityResult) -> None:
    for name in (field.name for field in fields(found)):
        np.testing.assert_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


def arrays_on_disk(result: Path) -> set[str]:
    return {path.name for path in result.iterdir() if path.is_dir()} - {"row", "column"}


@pytest.mark.parametrize("name", ROOTS)
def test_the_fixture_is_of_version_1(name):
    assert version_of(FIXTURE / name) == 1


@pytest.mark.parametrize("key", TAPS)
def test_activations_read_as_they_were_written(key):
    wanted = make_stores.meta(*key)
    tap = store.open(FIXTURE / "activations.zarr")[wanted.key]
    assert tap.n_committed == (8 if key == UNFINISHED else 10)
    assert_bit_equal(tap.read(0, tap.n_committed), make_stores.activations(*key)[: tap.n_committed])
    assert_bit_equal(tap.read(3, 6), make_stores.activations(*key)[3:6])
    assert_bit_equal(tap.samples, SAMPLES)
    assert_bit_equal(tap.labels, LABELS[wanted.key.run])


@pytest.mark.parametrize("key", TAPS)
def test_metadata_say_what_they_said(key):
    wanted = make_stores.meta(*key)
    found = store.open(FIXTURE / "activations.zarr")[wanted.key].meta
    names = [field.name for field in fields(found) if field.name != "attributes"]
    assert {n: getattr(found, n) for n in names} == {n: getattr(wanted, n) for n in names}


def test_activations_are_found():
    opened = store.open(FIXTURE / "activations.zarr")
    taps = [tap.key.tap for tap in opened.find(run=RUN, checkpoint="epoch-0005")]
    assert taps == ["conv1", "tokens", "logits"]
    assert [tap.key.run for tap in opened.find(checkpoint="pretrained")] == [FOREIGN]
    assert [tap.key.tap for tap in opened.find(epoch__ge=5, depth=1, tap="t*")] == ["tokens"]
    assert opened.sample_sets() == [SAMPLE_SET]
    assert [tap.key.path for tap in opened.find() if not tap.complete] == [
        f"{SAMPLE_SET.name}/{'/'.join(UNFINISHED)}"
    ]


def test_grams_read_as_they_were_written():
    meta = make_stores.gram_meta()
    found = store.open_grams(FIXTURE / "grams.zarr")[meta.key]
    # What version 1 kept was another median: of the first examples, equal ones among them.
    assert found.median_distance is None
    assert found.bounds == [None] * found.meta.length
    for packed, K in zip(found.read(0, 2), make_stores.grams(), strict=True):
        assert_bit_equal(store.unpack(packed), K)


def test_a_result_reads_as_it_was_written():
    assert store.list_results(FIXTURE / "similarity.zarr") == ["taps"]
    found = store.read_result(FIXTURE / "similarity.zarr", "taps")
    assert_same_result(found, make_stores.result())


def test_arrays_of_older_results_arrive_under_their_names_of_today(old):
    former = arrays_on_disk(old / "similarity.zarr" / "taps")
    found = store.read_result(old / "similarity.zarr", "taps")
    assert former - set(found.arrays) == set(FORMER.values())
    assert set(found.arrays) - former == set(FORMER)
    assert {"values": found.values, "errors": found.errors} | found.parts == found.arrays
    np.testing.assert_equal(found.cka, found.values)
    np.testing.assert_equal(found.sums("rows_minibatches"), found.parts["hsic_rows_minibatches"])
    method = {"measure": "cka", "kernel": "rbf", "sigma": 0.4, "estimator": "unbiased"}
    assert method.items() <= found.method.items()
    assert (found.kernel_title, found.pool, found.batch_size) == ("RBF 0.4", "whole", 4)
    store.write_result(old / "similarity.zarr", found)
    assert arrays_on_disk(old / "similarity.zarr" / "taps") == set(found.arrays)


# What names tell, what extraction says today, and nothing at all.
@pytest.mark.parametrize(
    "attributes",
    [
        {"depth": 1, "variant": "v2", "seed": 0, "epoch": 0},
        {"depth": 1, "variant": "v2", "seed": 0, "epoch": 0, "width": 0.5},
        {},
    ],
)
def test_what_was_unfinished_is_finished(old, attributes):
    path = old / "activations.zarr"
    meta = replace(make_stores.meta(*UNFINISHED), attributes=attributes)
    rows = make_stores.activations(*UNFINISHED)
    with Writer.open(path, meta, SAMPLES, LABELS[RUN]) as writer:
        assert writer.n_committed == 8
        writer.append(rows[8:])
    assert_bit_equal(store.open(path)[meta.key].read(0, 10), rows)
    assert version_of(path) == SCHEMA_VERSION


def test_version_2_has_no_float64_and_opens(old):
    path, meta = old / "activations.zarr", make_meta(dtype="float64", split="train")
    set_version(path, 2)
    assert len(store.open(path).find()) == len(TAPS)
    with Writer.open(path, meta, *coordinates(meta)) as writer:
        for rows in batches(meta, make_rows(meta)):
            writer.append(rows)
    assert version_of(path) == SCHEMA_VERSION
    assert len(store.open(path).find()) == len(TAPS) + 1


def test_attributes_of_version_1_follow_from_the_names():
    opened = store.open(FIXTURE / "activations.zarr")
    assert {(tap.key.run, tap.key.checkpoint): tap.meta.attributes for tap in opened.find()} == {
        (RUN, "epoch-0005"): {"depth": 1, "variant": "v2", "seed": 0, "epoch": 5},
        (RUN, "init"): {"depth": 1, "variant": "v2", "seed": 0, "epoch": 0},
        (FOREIGN, "pretrained"): {},
    }


def test_what_is_finished_takes_no_more_work(old):
    for key in TAPS.keys() - {UNFINISHED}:
        meta = make_stores.meta(*key)
        labels = LABELS[meta.key.run]
        assert Writer.open(old / "activations.zarr", meta, SAMPLES, labels).complete
    meta = make_stores.gram_meta()
    assert GramWriter.open(old / "grams.zarr", meta, SAMPLES, LABELS[RUN]).complete


def test_reading_changes_nothing(old):
    before = contents(old)
    for key in TAPS:
        tap = store.open(old / "activations.zarr")[make_stores.meta(*key).key]
        tap.read(0, tap.n_committed)
    store.open_grams(old / "grams.zarr")[make_stores.gram_meta().key].read(0, 2)
    store.read_result(old / "similarity.zarr", "taps")
    assert contents(old) == before


def test_new_and_old_results_lie_side_by_side(old):
    path, new = old / "similarity.zarr", replace(make_stores.result(), name="new")
    store.write_result(path, new)
    assert store.list_results(path) == ["new", "taps"]
    assert_same_result(store.read_result(path, "new"), new)
    assert_same_result(store.read_result(path, "taps"), make_stores.result())
    assert version_of(path) == SCHEMA_VERSION


@pytest.mark.parametrize("name", ROOTS)
def test_a_newer_version_is_refused(old, name):
    set_version(old / name, SCHEMA_VERSION + 1)
    wanted = (
        f"{old / name} has schema version {SCHEMA_VERSION + 1}, and this package reads up to"
        f" {SCHEMA_VERSION}; install a newer one"
    )
    with pytest.raises(SchemaError, match=f"^{re.escape(wanted)}$"):
        ROOTS[name](old / name)


@pytest.mark.parametrize("version", [0, -1, "1", None, 1.5])
def test_what_is_no_version_is_refused(old, version):
    set_version(old / "activations.zarr", version)
    wanted = f"has schema version {version!r}; want 1 to {SCHEMA_VERSION}"
    with pytest.raises(SchemaError, match=re.escape(wanted)):
        store.open(old / "activations.zarr")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
