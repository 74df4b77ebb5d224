"""Numbers do not move: a workspace of an earlier version, read, compared and drawn by this one."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import zarr

import store
from allcnn.compare import compare
from allcnn.probing.fit import probe
from allcnn.settings.comparison import Comparison
from allcnn.settings.probing import Probing
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from tests.commands import succeed

ARCHIVE = Path(__file__).with_name("data") / "workspace-v2.tar.xz"
NUMBERS = ("cka", "hsic", "hsic_rows", "hsic_columns", "standard_errors", "baseline")
NOW = {"cka": "values", "standard_errors": "errors"}
"""What they are called since; the others kept their names."""

RESULTS = 10


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what `make_workspace.py` wrote; copy it before writing."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(unpacked: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unpacked, tmp_path / "old"))


def raw_results(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return the numbers of stored results by plain Zarr, without any of our readers."""
    root = zarr.open_group(folder / "similarity.zarr", mode="r")
    return {
        name: {each: np.asarray(group[each]) for each in NUMBERS if each in group}
        for name, group in root.groups()
    }


def test_results_open_with_the_numbers_that_were_written(unpacked):
    wanted = raw_results(unpacked)
    assert len(wanted) == RESULTS
    for name, numbers in wanted.items():
        found = store.read_result(unpacked / "similarity.zarr", name)
        for each, values in numbers.items():
            np.testing.assert_array_equal(
                found.arrays[NOW.get(each, each)], values, err_msg=f"{name} {each}"
            )


def test_computed_again_they_agree(old):
    """To 1e-7 where Gram products round alike; kinds of processor differ by up to 1e-6."""
    wanted = raw_results(old)
    jobs = {
        name: store.read_result(old / "similarity.zarr", name).provenance["job"] for name in wanted
    }
    shutil.rmtree(old / "similarity.zarr")
    shutil.rmtree(old / "grams.zarr")
    workspace = Workspace.at(old)
    extract = "extract old-tiny-10-s0 --checkpoint all --samples 48 --batch-size 8"
    succeed(*extract.split(), workspace=workspace)
    for name, job in jobs.items():
        (found,) = compare(workspace, Comparison.from_json(job))
        for each, values in wanted[name].items():
            scale = 1.0 if each in ("cka", "standard_errors", "baseline") else np.abs(values).max()
            np.testing.assert_allclose(
                found.arrays[NOW.get(each, each)] / scale, values / scale, rtol=0, atol=1e-6,
                err_msg=f"{name} {each}",
            )  # fmt: skip


def test_nothing_is_computed_again(old):
    before = sorted((old / "similarity.zarr").rglob("*"))
    for line in (
        "compare old-d1-v2-s0@final old-tiny-10-s0@final --batch-size 8",
        "figure matrix old-d1-v2-s0@final --kernel rbf --estimator exact --label 3",
        "store ls",
        "run ls",
        "store verify",
        "nightly --samples 48 --minibatch 8",
    ):
        succeed(*line.split(), workspace=Workspace.at(old))
    assert sorted((old / "similarity.zarr").rglob("*")) == before
    assert (old / "report" / "index.html").exists()


def test_a_probe_is_found_and_computed_again_it_agrees(old):
    (name,) = store.list_probes(old / "probes.zarr")
    wanted = store.read_probe(old / "probes.zarr", name)
    workspace, job = Workspace.at(old), Probing(Selection.parse("old-d1-v2-s0@final"))
    (found,) = probe(workspace, job)
    assert found.provenance == wanted.provenance
    shutil.rmtree(old / "probes.zarr")
    (again,) = probe(workspace, job)
    assert again.provenance["created_at"] != wanted.provenance["created_at"]
    assert (again.name, again.taps) == (name, wanted.taps)
    # Ten examples that are held out hardly distinguish a penalty from the next one.
    assert np.abs(np.log10(again.penalties / wanted.penalties)).max() < 0.51
    np.testing.assert_array_equal(again.n_features, wanted.n_features)
    # One example between two classes may go to either.
    one = 1.001 / 48
    np.testing.assert_allclose(again.accuracy, wanted.accuracy, rtol=0, atol=one)
    np.testing.assert_allclose(again.train_accuracy, wanted.train_accuracy, rtol=0, atol=one)
