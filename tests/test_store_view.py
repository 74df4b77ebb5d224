"""Lazy views: the same with Dask and without, and every value from a verified minibatch."""

import pickle
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import store
from store import DamagedChunkError, Writer
from tests.faults import chunk_files, flip_bit
from tests.strategies import batches, coordinates, make_meta, make_rows, make_similarity

xarray = pytest.importorskip("xarray")

ATTRIBUTES = {"epoch": 5, "variant": "v2"}


def fill(path, meta, **how):
    rows = make_rows(meta)
    with Writer.open(path, meta, *coordinates(meta), **how) as writer:
        for batch in batches(meta, rows):
            writer.append(batch)
    return store.open(path)[meta.key], rows


@pytest.fixture
def tap(tmp_path):
    return fill(tmp_path / "a.zarr", make_meta(n_samples=18, attributes=ATTRIBUTES))


@pytest.fixture(params=["dask", "no dask"])
def dask(request, monkeypatch):
    """Run a test with Dask and with it hidden."""
    if request.param == "no dask":
        monkeypatch.setattr("store.arrays.xarray_view.find_spec", lambda _: None)
    return request.param == "dask"


@pytest.fixture
def reads():
    """Return where the minibatches begin that are read from disk."""
    seen, original = [], store.Representation._fill

    def spy(self, block, target):
        seen.append(block.start)
        return original(self, block, target)

    with mock.patch.object(store.Representation, "_fill", spy):
        yield seen


def test_the_view_says_what_it_is(tap, dask):
    view = tap[0].select(label=[3, 4], channels=[1]).to_xarray()
    assert (view.name, view.dims) == ("conv1", ("sample", "y", "x", "channel"))
    assert view.dtype == np.float32
    assert view.coords["sample"].values.tolist() == [14, 13, 4, 3]
    assert view.coords["label"].values.tolist() == [3, 4, 3, 4]
    assert view.coords["channel"].values.tolist() == [1]
    assert view.attrs["run"] == "allcnn-d1-v2-s0"
    assert view.attrs["dataset"] == "digits"
    assert view.attrs["created_by"] == "tests"
    assert (view.attrs["epoch"], view.attrs["variant"]) == (5, "v2")


@pytest.mark.parametrize(
    ("shape", "dims"),
    [((3,), ("channel",)), ((2, 3), ("position", "channel")), ((2, 2, 3), ("y", "x", "channel"))],
)
def test_dimensions_follow_the_tap(tmp_path, dask, shape, dims):
    selected = fill(tmp_path / "a.zarr", make_meta(shape=shape))[0].select(slice(0, 4))
    assert selected.to_xarray().dims == ("sample", *dims)
    means = fill(tmp_path / "b.zarr", make_meta(shape=shape))[0].select(space="mean").to_xarray()
    assert (means.dims, means.shape) == (("sample", "channel"), (10, 3))


def test_making_a_view_reads_no_activations(tap, dask, reads):
    view = tap[0].select([9, 0, 5]).to_xarray()
    part = view.isel(sample=slice(0, 2), channel=0)
    assert repr(view)
    assert part.shape == (2, 3, 2)
    assert reads == []


KEYS = {
    "one": {"sample": 7},
    "rows": {"sample": slice(3, 9)},
    "some rows": {"sample": [9, 1, 1]},
    "a channel": {"channel": 1},
    "channels backwards": {"channel": slice(None, None, -1)},
    "everything": {"sample": [2, 12], "y": 1, "x": slice(0, 1), "channel": [1, 0, 1]},
    "one value": {"sample": -1, "y": 0, "x": 1, "channel": 0},
    "nothing": {"sample": slice(0, 0)},
    "points": {
        "sample": xarray.DataArray([1, 5], dims="point"),
        "y": xarray.DataArray([0, 2], dims="point"),
    },
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("rows", [None, slice(None, None, -1), [4, 2] * 10], ids=str)
def test_indexing_gives_what_the_whole_has(tap, dask, key, rows):
    view = tap[0].select(rows, channels=[1, 0]).to_xarray()
    whole = tap[0].select(rows, channels=[1, 0]).read()
    wanted = xarray.DataArray(whole, dims=view.dims).isel(key)
    np.testing.assert_array_equal(view.isel(key).values, wanted.values)


def test_only_minibatches_that_are_needed_are_read(tap, dask, reads):
    view = tap[0].select(space="mean").to_xarray()
    np.testing.assert_array_equal(view.sel(sample=17 - 9), tap[1][9].mean(axis=(0, 1)))
    assert set(reads) == {8}
    reads.clear()
    view.isel(sample=[17, 0, 1]).compute()
    assert set(reads) == {0, 16}


def test_labels_choose_rows_of_a_view(tap, dask, reads):
    view = tap[0].select().to_xarray()
    chosen = view.isel(sample=np.flatnonzero(view.label == 9))
    np.testing.assert_array_equal(chosen.values, tap[1][9:10])
    assert set(reads) == {8}


def test_dask_has_a_chunk_for_each_minibatch_and_reads_it_once(tap, reads):
    array = pytest.importorskip("dask.array")
    view = tap[0].select(slice(2, 17)).to_xarray()
    assert isinstance(view.data, array.Array)
    assert view.chunks == ((2, 4, 4, 4, 1), (3,), (2,), (2,))
    np.testing.assert_allclose(view.mean("sample").values, tap[1][2:17].mean(0), rtol=1e-5)
    assert sorted(reads) == [0, 4, 8, 12, 16]


def test_rows_in_disorder_still_read_each_minibatch_once(tap, reads):
    pytest.importorskip("dask.array")
    order = np.random.default_rng(0).permutation(18)
    view = tap[0].select(order).to_xarray()
    np.testing.assert_array_equal(view.values, tap[1][order])
    assert sorted(reads) == [0, 4, 8, 12, 16]
    assert view.coords["sample"].values.tolist() == (17 - order).tolist()


def test_selections_do_not_share_results_of_others(tap, tmp_path):
    pytest.importorskip("dask.array")
    other, _ = fill(tmp_path / "b.zarr", make_meta(n_samples=18, attributes=ATTRIBUTES))
    selections = [
        other.select(),
        tap[0].select(),
        tap[0].select(slice(1, None)),
        tap[0].select(channels=[0]),
        tap[0].select(channels=[1]),
        tap[0].select(space="mean"),
    ]
    assert len({selection.to_xarray().data.name for selection in selections}) == 6
    assert tap[0].select().to_xarray().data.name == tap[0].select().to_xarray().data.name


def test_damage_is_found_through_a_view(tap, dask, tmp_path):
    flip_bit(chunk_files(tmp_path / "a.zarr" / tap[0].key.path / "activations")[1])
    view = tap[0].select().to_xarray()
    np.testing.assert_array_equal(view[:4].values, tap[1][:4])
    with pytest.raises(DamagedChunkError, match="rows 4 to 7 of tap conv1"):
        view[6].compute()


def test_a_store_at_an_address_is_selected_from_alike(dask):
    where = f"memory://view-{dask}/a.zarr"
    tap, rows = fill(where, make_meta(attributes=ATTRIBUTES))
    (found,) = store.open(where).find(tap="conv*", epoch__ge=5)
    np.testing.assert_array_equal(found.select([7, 2], channels=[1]).read(), rows[[7, 2]][..., 1:])
    view = tap.select().to_xarray()
    np.testing.assert_array_equal(view[1:3].values, rows[1:3])


def test_a_view_pickles_without_its_values(tap, dask):
    view = tap[0].select([3, 1]).to_xarray()
    copy = pickle.loads(pickle.dumps(view))
    np.testing.assert_array_equal(copy.values, tap[1][[3, 1]])


def make_result():
    key = make_meta().key
    made = {"created_at": "2026-01-31T12:00:00+00:00"}
    return make_similarity("seeds", [key], [key], np.ones((1, 1)), provenance=made)


def in_python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    root = Path(store.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_dask_a_view_is_read_by_xarray_alone(tap, tmp_path):
    code = """
import sys
sys.modules["dask"] = None
import store
view = store.open(sys.argv[1]).find(tap="conv1")[0].select(label=3).to_xarray()
assert view.chunks is None
print(view.sum().item(), *(name for name in sys.modules if name.startswith(("dask.", "jax"))))
"""
    wanted = tap[1][[3, 13]].sum(dtype=np.float32)
    assert float(in_python(code, tmp_path / "a.zarr")) == pytest.approx(wanted, rel=1e-6)


def test_without_xarray_a_view_says_what_to_install(tap, tmp_path):
    code = """
import sys
sys.modules["xarray"] = None
import store
selection = store.open(sys.argv[1]).find(tap="conv1")[0].select(slice(0, 2))
assert selection.read().shape == (2, 3, 2, 2)
try:
    selection.to_xarray()
except ImportError as error:
    print(error)
"""
    assert in_python(code, tmp_path / "a.zarr").startswith("a view needs xarray, which is not")


# What nobody needs this package for; -W error makes every warning one, -I leaves its folder out.
def alone(code: str, *arguments: object) -> str:
    code += "\nassert not {'store', 'allcnn', 'flows'} & set(sys.modules)"
    command = [sys.executable, "-I", "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def several(tmp_path):
    """Return a store of two networks with taps of every rank, one of which is being written."""
    path = tmp_path / "a.zarr"
    fill(path, make_meta())
    fill(path, make_meta("logits", shape=(5,), tap_index=1, dtype="float16"), compression="zstd")
    fill(path, make_meta("tokens", shape=(2, 5), tap_index=2, run="other"))
    meta = make_meta("conv1", run="other", checkpoint="init")
    with Writer.open(path, meta, *coordinates(meta)) as writer:
        writer.append(make_rows(meta)[:4])
        yield path


def test_xarray_alone_opens_a_store_as_it_is(several):
    code = """
import sys
import numpy, xarray
with xarray.open_datatree(sys.argv[1], engine="zarr", consolidated=False) as tree:
    for node in sorted(tree.leaves, key=lambda node: node.path):
        array = node["activations"]
        assert set(array.coords) == {"sample", "label"}, array.coords
        sample, label = array.coords["sample"], array.coords["label"]
        assert (sample.dtype, label.dtype) == ("int64", "int32")
        print(node.path.split("/", 2)[2], *array.dims, *array.shape, sample.values[0])
        print(array.sel(sample=9).values.sum(dtype=float), array[4:].notnull().any().item())
    chosen = tree["digits-test-10-01234567/allcnn-d1-v2-s0/final/conv1"]["activations"]
    print(*chosen[chosen.label == 3].values.ravel())
"""
    lines = alone(code, several).splitlines()
    assert lines[0:-1:2] == [
        "allcnn-d1-v2-s0/final/conv1 sample y x channel 10 3 2 2 9",
        "allcnn-d1-v2-s0/final/logits sample channel 10 5 9",
        "other/final/tokens sample position channel 10 2 5 9",
        "other/init/conv1 sample y x channel 10 3 2 2 9",
    ]
    # The rest of the unfinished one is NaN, not zeros.
    assert [line.split()[1] for line in lines[1:-1:2]] == ["True", "True", "True", "False"]
    first = make_rows(make_meta())
    assert float(lines[1].split()[0]) == pytest.approx(first[0].sum(dtype=float))
    assert list(map(float, lines[-1].split())) == pytest.approx(first[3].ravel().tolist())


def test_zarr_alone_opens_a_store_as_it_is(several):
    code = """
import sys
import numpy, zarr
root = zarr.open(sys.argv[1], mode="r")
path = "digits-test-10-01234567/allcnn-d1-v2-s0/final/logits"
group = root[path]
assert set(group.array_keys()) == {"activations", "sample", "label"}
assert group["activations"].metadata.dimension_names == ("sample", "channel")
print(group["activations"].dtype, *group["activations"][2:4].ravel(), *group["sample"][2:4])
"""
    dtype, *values, first, second = alone(code, several).split()
    rows = make_rows(make_meta("logits", shape=(5,), tap_index=1, dtype="float16"))
    assert (dtype, first, second) == ("float16", "7", "6")
    np.testing.assert_array_equal(np.array(values, np.float16), rows[2:4].ravel())


def test_what_the_readme_says_of_queries_runs(tmp_path):
    readme = (Path(store.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Query a store from Python\n")[2].partition("\n## ")[0]
    code = "\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    names = {"run": "demo-d1-v2-s0", "n_samples": 300, "batch_rows": 64, "shape": (3, 2, 6)}
    meta = make_meta("conv5", **names, attributes={"epoch": 12})
    fill(tmp_path / "workspace/activations.zarr", meta)
    store.write_result(tmp_path / "workspace/similarity.zarr", make_result())
    code = f"import os\nos.chdir({str(tmp_path)!r})\n{code}\nprint(values.shape, by_class.shape)"
    assert in_python(code).splitlines() == [
        "demo-d1-v2-s0@final:conv5 {'epoch': 12} (3, 2, 6)",
        "seeds (1, 1) 2026-01-31T12:00:00+00:00",
        "(30, 2) (10, 3, 2, 6)",
    ]
