"""No pickle is loaded from a store, a run or a checkpoint: it could run anything."""

import json
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import store
from allcnn import extract
from allcnn.compare import compare
from allcnn.settings.extraction import Extraction
from allcnn.settings.selection import Selection
from store import DamagedChunkError, Writer
from store.maintenance.verify import verify
from tests.networks import comparison
from tests.strategies import batches, coordinates, make_gram_meta, make_grams, make_meta, make_rows

RUN = "small-d1-v2-s0"

GUARDED = """
import pickle, _pickle, sys

def refused(*arguments, **options):
    raise AssertionError("a pickle was loaded")

class Refusing(pickle.Unpickler):
    load = refused

pickle.load = pickle.loads = pickle._load = pickle._loads = refused
_pickle.load = _pickle.loads = refused
pickle.Unpickler = _pickle.Unpickler = Refusing
pickle._Unpickler.load = refused

import marshal, shelve
shelve.open = refused

def watch(event, arguments):
    if event == "pickle.find_class":
        refused()

sys.addaudithook(watch)
"""
"""Set before anything of ours, or of others, is imported: no name is bound to the originals."""

READING = """
import numpy as np
import store
from allcnn.networks import variables as of_networks
from allcnn.workspace import checkpoints, run_record
from allcnn.workspace.paths import Workspace
from store.maintenance.verify import verify

place = Workspace.at(sys.argv[1])
n_read = 0
for tap in store.open(place.activations).find():
    n_read += len(tap.read(0, tap.n_committed)) + len(tap.samples) + len(tap.labels)
for grams in store.open_grams(place.grams).find():
    n_read += len(grams.read(0, grams.n_committed)) + (grams.median_distance is None)
for name in store.list_results(place.similarity):
    n_read += len(store.read_result(place.similarity, name).rows)
stores = [
    ("activations", place.activations), ("grams", place.grams), ("similarity", place.similarity)
]
for kind, path in stores:
    n_read += sum(not checked.damage for checked in verify(path, kind))
for run in place.runs():
    entry = run_record.read_record(place, run)
    n_read += len(run_record.read_history(place, run))
    for name in place.checkpoints(run):
        folder = place.find_checkpoint(run, name)
        variables = checkpoints.load_variables(folder, of_networks.abstract(entry.network))[0]
        n_read += len(checkpoints.digest(variables)) > 0
for folder in place.root.rglob("*.npy"):
    np.load(folder)
print(n_read)
"""


@pytest.fixture(scope="module")
def place(trained, tmp_path_factory):
    """Return a workspace with a run, its activations, their Grams and a result."""
    root = tmp_path_factory.mktemp("place")
    (root / "runs").symlink_to(trained.root / "runs")
    here = type(trained).at(root)
    how = {"n_samples": 16, "batch_size": 8}
    extract.extract(here, Extraction(RUN, "final", keep=("activations", "grams"), **how))
    extract.extract(here, Extraction(RUN, "init", compression="zstd", **how))
    side = Selection(RUN, "final")
    compare(here, comparison(side, side, batch_size=8))
    return here


def guarded(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", GUARDED + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=False)


@pytest.mark.parametrize(
    "way",
    [
        "pickle.loads(pickle.dumps(1))",
        "pickle.Unpickler(io.BytesIO(pickle.dumps([1]))).load()",
        "pickle._Unpickler(io.BytesIO(pickle.dumps([1]))).load()",
        "np.load(sys.argv[1], allow_pickle=True)",
    ],
)
def test_the_guard_notices(tmp_path, way):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    found = guarded(f"import io\nimport numpy as np\n{way}", tmp_path / "objects.npy")
    assert found.stderr.strip().endswith("AssertionError: a pickle was loaded"), found.stderr


def test_reading_loads_no_pickle(place):
    found = guarded(READING, place.root)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) > 200


def test_nothing_stored_is_a_pickle(place):
    """A pickle of any protocol from 2 on begins with its number, and ends with a full stop."""
    files = [path for path in place.root.rglob("*") if path.is_file()]
    files += [path for path in (place.root / "runs").rglob("*") if path.is_file()]
    assert len(files) > 100
    for path in files:
        content = path.read_bytes()
        assert not (content[:1] == b"\x80" and content[1:2] <= b"\x05" and content[-1:] == b"."), (
            path
        )


# Hostile stores


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write(path):
    meta = make_meta()
    with Writer.open(path, meta, *coordinates(meta)) as writer:
        for rows in batches(meta, make_rows(meta)):
            writer.append(rows)
    return store.open(path)[meta.key]


def write_grams(path):
    meta = make_gram_meta()
    with store.GramWriter.open(path, meta, *coordinates(meta)) as writer:
        for K in make_grams(meta):
            writer.append(K)
    return store.open_grams(path)[meta.key]


def change(folder, **fields):
    node = json.loads((folder / "zarr.json").read_text())
    (folder / "zarr.json").write_text(json.dumps(node | fields))


def plant(array, bomb):
    for file in (array / "c").rglob("*"):
        if file.is_file():
            file.write_bytes(pickle.dumps(Bomb(bomb)))


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
HOSTILE = [
    {"codecs": [{"name": "pickle"}]},
    {"codecs": [{"name": "numcodecs.pickle", "configuration": {"protocol": 5}}]},
    {"codecs": [{"name": "pickle", "configuration": {}}, {"name": "crc32c"}]},
    {"codecs": [BYTES, {"name": "numcodecs.zlib", "configuration": {"level": 1}}]},
    {"codecs": [BYTES, {"name": "../../evil"}]},
    {"codecs": ["pickle"]},
    {"codecs": []},
    {"codecs": "pickle"},
    {"data_type": "object"},
    {"data_type": "|O"},
    {"data_type": {"name": "numpy.object", "configuration": {}}},
    {"storage_transformers": [{"name": "pickle"}]},
    {"chunk_key_encoding": {"name": "pickle"}},
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=str)
@pytest.mark.parametrize("array", ["activations", "sample", "label"])
def test_a_hostile_array_is_refused_in_a_sentence(tmp_path, array, hostile):
    tap = write(tmp_path / "a.zarr")
    change(tap.place / array, **hostile)
    plant(tap.place / array, tmp_path / "exploded")
    reopened = store.open(tmp_path / "a.zarr")[tap.key]
    with pytest.raises(DamagedChunkError, match=r"tap conv1 of run .* are damaged .*restore"):
        reopened.read(0, 10) if array == "activations" else getattr(reopened, f"{array}s")
    assert not (tmp_path / "exploded").exists()
    damage = [each for one in verify(tmp_path / "a.zarr", "activations") for each in one.damage]
    assert [(each.path, each.part) for each in damage] == [(tap.key.path, "metadata")]
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("hostile", HOSTILE, ids=str)
def test_hostile_grams_are_refused_in_a_sentence(tmp_path, hostile):
    grams = write_grams(tmp_path / "a.zarr")
    change(grams.place / "grams", **hostile)
    plant(grams.place / "grams", tmp_path / "exploded")
    with pytest.raises(DamagedChunkError, match=r"of the Grams .* are damaged .*restore"):
        store.open_grams(tmp_path / "a.zarr")[grams.key].read(0, 4)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("hostile", HOSTILE, ids=str)
def test_a_hostile_result_is_refused_in_a_sentence(tmp_path, place, hostile):
    (name,) = store.list_results(place.similarity)
    result = store.read_result(place.similarity, name)
    store.write_result(tmp_path / "a.zarr", result)
    change(tmp_path / "a.zarr" / name / "values", **hostile)
    plant(tmp_path / "a.zarr" / name / "values", tmp_path / "exploded")
    with pytest.raises(DamagedChunkError, match=f"values of result {name} in .* compute it again"):
        store.read_result(tmp_path / "a.zarr", name)
    assert not (tmp_path / "exploded").exists()
