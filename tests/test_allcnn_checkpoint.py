"""Checkpoints: bit for bit there and back, never half of one, and no damage unnoticed."""

import hashlib
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from allcnn.errors import RunError, WorkspaceError
from allcnn.networks.architectures.convnet import ConvNet
from allcnn.networks.architectures.convolutional import Conv, Layers
from allcnn.networks.network import Variables
from allcnn.networks.variables import abstract
from allcnn.settings.run import RunConfig
from allcnn.training.recipe import Lange
from allcnn.workspace import checkpoints
from allcnn.workspace.checkpoints import Position, TrainState
from allcnn.workspace.paths import Workspace
from tests.faults import damaging

NETWORK = ConvNet(Layers((Conv(16), Conv(16)), is_linear=False), 16, 3, 12)


def draw_state(seed):
    """Return a state whose optimiser has taken one step, so that nothing of it is zero."""
    variables = NETWORK.init(jax.random.key(seed), np.full(3, 100.0), np.full(3, 50.0))
    transform = Lange().optimiser(RunConfig.of(), 10)
    state = transform.init(variables.params)
    _, state = transform.update(variables.params, state, variables.params)
    return TrainState(variables, state, Position.first(jax.random.key(seed + 7)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "final"
    checkpoints.save(folder, draw_state(0))
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "final")


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_is_read_bit_for_bit_with_its_optimiser(saved):
    assert_same(checkpoints.load(saved, draw_state(1)), draw_state(0))


def test_variables_are_read_from_shapes_alone_and_without_a_warning(saved, caplog):
    found = checkpoints.load_variables(saved, abstract(NETWORK))[0]
    assert not [entry for entry in caplog.records if entry.levelname in ("WARNING", "ERROR")]
    assert_same(found, draw_state(0).variables)


def test_what_was_trained_on_another_device_is_read_here(copy):
    # The device that wrote is named in this file; no such device is here.
    for path in copy.rglob("_sharding"):
        assert "cpu:0" in path.read_text()
        path.write_text(path.read_text().replace("cpu:0", "cuda:0"))
    found = checkpoints.load_variables(copy, abstract(NETWORK))[0]
    assert_same(found, draw_state(0).variables)
    assert_same(checkpoints.load(copy, draw_state(1)), draw_state(0))


def test_a_checkpoint_without_digests_is_read(copy):
    # As the first version wrote them.
    path = copy / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace('"digests"', '"other"'))
    assert_same(checkpoints.load(copy, draw_state(1)), draw_state(0))


SAVED_AND_KILLED = """
import os, signal, sys
from pathlib import Path
from allcnn.workspace import checkpoints
from tests.test_allcnn_checkpoint import draw_state

folder, n = Path(sys.argv[1]), int(sys.argv[2])
state, made = draw_state(0), 0

def dying(change):
    def work(*args, **kwargs):
        global made
        made += 1
        # -1 stands for the last change, by which the checkpoint gets its name.
        if made - 1 == n or n < 0 and str(args[-1]) == str(folder):
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*args, **kwargs)
    return work

for name in ("mkdir", "rename", "replace", "unlink", "rmdir"):
    setattr(os, name, dying(getattr(os, name)))
checkpoints.save(folder, state)
"""


@pytest.mark.parametrize(
    "n", [-1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(0, 30, 2))]
)
def test_a_checkpoint_that_was_half_written_by_a_killed_process_is_none(tmp_path, n):
    workspace = Workspace.at(tmp_path)
    folder = workspace.checkpoints_folder("run") / "final"
    folder.parent.mkdir(parents=True)
    command = [sys.executable, "-c", SAVED_AND_KILLED, str(folder), str(n)]
    ended = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[1])
    assert ended.returncode in (-signal.SIGKILL, *([0] if n > 5 else [])), ended.stderr
    assert workspace.checkpoints("run") == (["final"] if ended.returncode == 0 else [])
    checkpoints.save(folder, draw_state(0))
    assert workspace.checkpoints("run") == ["final"]
    assert_same(checkpoints.load(folder, draw_state(1)), draw_state(0))


def test_saving_replaces_a_checkpoint(copy):
    checkpoints.save(copy, draw_state(2))
    assert_same(checkpoints.load(copy, draw_state(1)), draw_state(2))


@damaging
def test_a_checkpoint_that_cannot_be_written_is_one_sentence(saved, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    message = (
        r"^the checkpoint .*file/final cannot be written \(.*Not a directory.*\); .* run again$"
    )
    with pytest.raises(WorkspaceError, match=message):
        checkpoints.save(tmp_path / "file" / "final", draw_state(0))
    assert (tmp_path / "file").read_text() == "mine"

    def full(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write 9 bytes:\nNo space left on device")

    monkeypatch.setattr(ocp.Checkpointer, "save", full)
    with pytest.raises(WorkspaceError, match=r"\(.*9 bytes: No space left on device\)"):
        checkpoints.save(tmp_path / "other", draw_state(0))


def test_a_checkpoint_holds_no_code(saved):
    names = [path.name for path in saved.rglob("*") if path.is_file()]
    assert names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".py", ".pyc"))]
    # Protocol 2 and later of pickle begin with these two bytes and end with a full stop.
    for path in saved.rglob("*"):
        assert path.is_dir() or not path.read_bytes().startswith((b"\x80\x04", b"\x80\x05"))


@damaging
@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.85])
@pytest.mark.parametrize("item", ["variables", "optimiser"])
def test_a_flipped_bit_is_noticed(copy, item, share, bit):
    # The largest file holds the kernels, stored as they are: noise does not compress.
    files = (path for path in (copy / item).rglob("*") if path.is_file())
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"^the checkpoint .*final cannot be read \(.*\); restore"):
        checkpoints.load(copy, draw_state(1))


@damaging
@pytest.mark.parametrize("damage", ["gone", "empty", "half"])
@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt", "_sharding", "d"])
def test_a_damaged_file_is_one_sentence(copy, name, damage):
    path = copy / "optimiser" / name
    path = next(path.iterdir()) if path.is_dir() else path
    content = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(content[: len(content) // 2])
    if damage == "empty":
        path.write_bytes(b"")
    if (name, damage) == ("_sharding", "gone"):
        assert_same(checkpoints.load(copy, draw_state(1)), draw_state(0))
        return
    with pytest.raises(RunError, match=r"^the checkpoint .*\); restore it .*$") as caught:
        checkpoints.load(copy, draw_state(1))
    assert "\n" not in str(caught.value)


@damaging
@pytest.mark.parametrize("item", ["variables", "optimiser", "position", ""])
def test_a_checkpoint_that_lacks_an_item_is_refused(copy, item):
    shutil.rmtree(copy / item)
    with pytest.raises(RunError, match="cannot be read"):
        checkpoints.load(copy, draw_state(1))


@damaging
@pytest.mark.parametrize("layers", [(Conv(8), Conv(16)), (Conv(16),), (Conv(16),) * 3])
def test_another_network_is_refused(saved, layers):
    other = ConvNet(Layers(layers, is_linear=False), 16, 3, 12)
    with pytest.raises(RunError, match="cannot be read"):
        checkpoints.load_variables(saved, abstract(other))[0]


VARIABLES = Variables(
    {"conv1": {"kernel": jnp.arange(6.0).reshape(2, 3)}}, {"mean": jnp.zeros(2)}, {"std": 1.0}
)


def with_kernel(kernel, name="kernel"):
    return VARIABLES._replace(params={"conv1": {name: kernel}})


@pytest.mark.parametrize(
    "other",
    [
        with_kernel(jnp.arange(6.0).reshape(2, 3).at[1, 2].add(1e-6)),
        with_kernel(jnp.arange(6.0).reshape(3, 2)),
        with_kernel(jnp.arange(6.0)),
        with_kernel(jnp.arange(6.0).reshape(2, 3).view(jnp.int32)),
        with_kernel(jnp.arange(6.0).reshape(2, 3), name="bias"),
        VARIABLES._replace(batch_stats={"mean": -jnp.zeros(2)}),
        VARIABLES._replace(batch_stats={"mean": jnp.zeros(2), "var": jnp.zeros(0)}),
        VARIABLES._replace(batch_stats={}, inputs={"mean": jnp.zeros(2), "std": 1.0}),
        VARIABLES._replace(inputs={"std": np.ones(1)}),
    ],
    ids=["value", "shape", "flat", "dtype", "name", "sign", "empty", "moved", "scalar"],
)
def test_any_difference_changes_the_digest(other):
    assert checkpoints.digest(VARIABLES) != checkpoints.digest(other)


def test_the_digest_is_of_values_not_of_objects(saved):
    found = checkpoints.load_variables(saved, abstract(NETWORK))[0]
    assert checkpoints.digest(found) == checkpoints.digest(draw_state(0).variables)
    turned = with_kernel(np.arange(6, dtype=np.float32).reshape(3, 2, order="F").T.copy("F") * 0)
    zeros = with_kernel(np.zeros((2, 3), np.float32))
    assert checkpoints.digest(turned) == checkpoints.digest(zeros)


def test_the_digest_never_changes_between_versions():
    variables = Variables({"k": np.array([1.0, 2.0], np.float32)}, {}, {"std": np.float32(3)})
    content = b"inputs/std float32 ()\n" + struct.pack("<f", 3)
    content += b"params/k float32 (2,)\n" + struct.pack("<2f", 1, 2)
    assert checkpoints.digest(variables) == f"sha256:{hashlib.sha256(content).hexdigest()}"
