"""What goes wrong on disks: one sentence each, and nothing lost.

Root can write anywhere, so that whoever may not is a process of its own without that power.
"""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import store
from allcnn.networks.architectures.convnet import ConvNet
from allcnn.workspace.paths import Workspace
from flows.cli.main import main
from store import (
    ActivationOverflowError,
    InvalidKeyError,
    RepresentationKey,
    StoreLocationError,
    Writer,
)
from tests.commands import contents
from tests.networks import A, B, C, make_taps, write_network
from tests.strategies import batches, coordinates, make_meta, make_rows

ROOT = Path(__file__).parent.parent
D1 = "small-d1-v2-s0"
SAMPLES = "digits-test-66-01234567"

EXTRACT = ["extract", D1, "--samples", "64", "--batch-size", "32"]
COMPARE = ["compare", "a@final", "b@final", "--batch-size", "8"]
LS = ["store", "ls"]
DU = ["store", "du"]
RM = ["store", "rm", "a@*", "--yes"]
GC = ["store", "gc", "--older-than", "0", "--yes"]


def values(path):
    """Return all committed values of an activation store, and the records of them."""
    return {
        str(tap.key): (tap.read(0, tap.n_committed).tobytes(), tap.commits)
        for tap in store.open(path).find()
    }


def run(command, workspace):
    return CliRunner().invoke(
        main, [*command, "--workspace", str(workspace.root)], prog_name="allcnn"
    )


def check_sentence(result, *parts):
    """Check that a command failed with one sentence and no more."""
    assert result.exit_code == 1, result.output
    line = last_line(result.stderr)
    for part in parts:
        assert part in line


def last_line(stderr):
    """Return the one sentence of an error, which progress and the dashboard may precede."""
    before = ("[", "tasks run on threads of this process; dashboard http://127.0.0.1:")
    errors = [line for line in stderr.splitlines() if not line.startswith(before)]
    assert len(errors) == 1, stderr
    assert errors[0].startswith("Error: ")
    return errors[0]


@contextmanager
def largest_file(n_bytes):
    """Let no file become larger, as on a full disk: the system itself refuses the write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def whole(trained, tmp_path_factory):
    """Return what an undisturbed extraction of the small run stores."""
    workspace = Workspace.at(shutil.copytree(trained.root, tmp_path_factory.mktemp("whole") / "w"))
    assert run(EXTRACT, workspace).exit_code == 0
    return workspace


@pytest.fixture
def networks(tmp_path):
    """Return a workspace with the activations of two networks."""
    workspace = Workspace.at(tmp_path / "networks")
    write_network(workspace.activations, A, make_taps())
    write_network(workspace.activations, B, make_taps(seed=1))
    return workspace


def test_a_write_that_the_disk_refuses_loses_nothing(tmp_path):
    meta = make_meta(n_samples=256, batch_rows=64)
    rows = batches(meta, make_rows(meta))
    with Writer.open(tmp_path / "whole", meta, *coordinates(meta)) as writer:
        for each in rows:
            writer.append(each)
    with Writer.open(tmp_path / "full", meta, *coordinates(meta)) as writer:
        writer.append(rows[0])
        before = contents(tmp_path / "full")
        with largest_file(3000), pytest.raises(StoreLocationError) as caught:
            writer.append(rows[1])
    place = tmp_path / "full" / meta.key.path
    assert str(caught.value) == (
        f"cannot write rows 64 to 127 of {place}: {os.strerror(errno.EFBIG)}; committed rows are"
        " safe, so fix that and run again"
    )
    after = contents(tmp_path / "full")
    assert {name: after[name] for name in before if not name.endswith(".claim")} == {
        name: content for name, content in before.items() if not name.endswith(".claim")
    }
    np.testing.assert_array_equal(store.open(tmp_path / "full")[meta.key].read(0, 64), rows[0])
    with Writer.open(tmp_path / "full", meta, *coordinates(meta)) as writer:
        assert writer.n_committed == 64
        for each in rows[1:]:
            writer.append(each)
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


def test_creating_on_a_full_disk_is_one_sentence(tmp_path):
    meta = make_meta()
    with largest_file(100), pytest.raises(StoreLocationError, match=os.strerror(errno.EFBIG)):
        Writer.open(tmp_path / "store", meta, *coordinates(meta))
    with Writer.open(tmp_path / "store", meta, *coordinates(meta)) as writer:
        assert writer.n_committed == 0


def test_extract_on_a_full_disk_goes_on_once_there_is_room(small_disk, trained, whole):
    disk, resize = small_disk
    workspace = Workspace.at(shutil.copytree(trained.root, disk / "w"))
    used = shutil.disk_usage(disk).used
    resize(used + 400_000)
    result = run(EXTRACT, workspace)
    check_sentence(result, f"{workspace.activations}", os.strerror(errno.ENOSPC), "; ")
    before = values(workspace.activations)
    assert before
    resize(64_000_000)
    assert run(EXTRACT, workspace).exit_code == 0
    assert values(workspace.activations) == values(whole.activations)
    shutil.rmtree(workspace.root)


def test_compare_on_a_full_disk_goes_on_once_there_is_room(small_disk, networks):
    disk, resize = small_disk
    workspace = Workspace.at(shutil.copytree(networks.root, disk / "w"))
    before = contents(workspace.root)
    resize(shutil.disk_usage(disk).used + 50_000)
    check_sentence(run(COMPARE, workspace), os.strerror(errno.ENOSPC))
    after = contents(workspace.root)
    assert {name: after[name] for name in before} == before
    resize(64_000_000)
    result = run(COMPARE, workspace)
    assert result.exit_code == 0
    table = run(COMPARE, networks).stdout.split("\nresult")[0]
    assert result.stdout.split("\nresult")[0] == table


def test_a_full_disk_can_be_freed(small_disk, networks):
    disk, resize = small_disk
    workspace = Workspace.at(shutil.copytree(networks.root, disk / "w"))
    resize(shutil.disk_usage(disk).used + 4096)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (disk / "rest").write_bytes(bytes(10**6))
    assert run(RM, workspace).exit_code == 0
    assert {key.run for key in store.open(workspace.activations).keys()} == {"b"}


def test_extract_with_too_small_files_goes_on_without_that(workspace, whole):
    with largest_file(20_000):
        check_sentence(run(EXTRACT, workspace), os.strerror(errno.EFBIG), "so fix that and run")
    assert run(EXTRACT, workspace).exit_code == 0
    assert values(workspace.activations) == values(whole.activations)


_WITHOUT_POWER = """
import ctypes, os, sys
if os.geteuid() == 0:
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if ctypes.CDLL(None, use_errno=True).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
            raise OSError(ctypes.get_errno(), "prctl")
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""
"""Give up the right of root to pass over permissions, for good; others have none."""

_RUN = """
import json, sys
from click.testing import CliRunner
from flows.cli.main import main
found = []
for command in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, command, prog_name="allcnn")
    found.append([result.exit_code, result.stdout, result.stderr])
print(json.dumps(found))
"""


def run_without_power(commands, workspace):
    """Run commands one after the other as somebody for whom permissions count."""
    words = [[*command, "--workspace", str(workspace.root)] for command in commands]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_POWER, _RUN, json.dumps(words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def permissions(root, folders, files):
    """Set the permissions of everything below a folder, and give them back."""
    paths = [root, *root.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in reversed(paths):
        path.chmod(folders if path.is_dir() else files)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(modes[path])


def check_refused(found, commands, *, allowed=()):
    for command, (status, stdout, stderr) in zip(commands, found, strict=True):
        assert status == (command not in allowed), (command, stdout, stderr)
        if status:
            assert os.strerror(errno.EACCES) in last_line(stderr), command


@pytest.fixture
def compared(networks, trained):
    """Return two compared networks, two runs, and something that was given up."""
    assert run(COMPARE, networks).exit_code == 0
    shutil.copytree(trained.root / "runs", networks.root / "runs")
    write_network(networks.activations, C, make_taps(), n_committed=16)
    return networks


@pytest.mark.slow
def test_a_read_only_workspace_can_be_read_and_refuses_the_rest(compared):
    other = ["compare", "a@final", "b@final", "--batch-size", "16"]
    commands = [LS, DU, EXTRACT, other, GC, RM]
    before = contents(compared.root)
    with permissions(compared.root, 0o555, 0o444):
        found = run_without_power(commands, compared)
    check_refused(found, commands, allowed=(LS, DU))
    assert contents(compared.root) == before
    for command in (EXTRACT, other, GC, RM):
        assert run(command, compared).exit_code == 0


@pytest.mark.slow
def test_a_store_that_may_not_be_read_is_refused(compared):
    before = contents(compared.root)
    other = ["compare", "a@final", "b@final", "--batch-size", "16"]
    commands = [LS, DU, EXTRACT, other, GC, RM]
    with permissions(compared.activations, 0o000, 0o000):
        found = run_without_power(commands, compared)
    check_refused(found, commands)
    assert contents(compared.root) == before


@pytest.mark.slow
def test_a_group_that_may_not_be_read_is_refused(compared):
    before = contents(compared.root)
    exact = ["compare", "a@final", "b@final", "--estimator", "exact"]
    commands = [LS, DU, exact]
    with permissions(compared.activations / SAMPLES / "a/final/one", 0o000, 0o000):
        found = run_without_power(commands, compared)
    check_refused(found, commands)
    assert contents(compared.root) == before


@pytest.mark.slow
def test_what_may_not_be_listed_does_not_seem_to_be_nothing(compared):
    with permissions(compared.activations / SAMPLES / "a/final/one", 0o000, 0o000):
        found = run_without_power([RM], compared)
    check_refused(found, [RM])


@pytest.mark.slow
def test_a_group_that_may_not_be_removed_stays_whole(networks):
    before = contents(networks.root)
    group = networks.activations / SAMPLES / "a/final/one"
    with permissions(group, 0o555, 0o444):
        ((status, _, error),) = run_without_power([RM], networks)
    assert status == 1
    assert error.startswith(f"Error: cannot remove {group}: {os.strerror(errno.EACCES)}; fix that")
    assert contents(networks.root) == before
    assert run(RM, networks).exit_code == 0
    assert {key.run for key in store.open(networks.activations).keys()} == {"b"}


def test_float16_overflow_names_the_tap_and_the_largest_value(workspace, monkeypatch):
    original = ConvNet.apply

    def louder(*arguments):
        taps = original(*arguments)
        return {name: 1e6 * tap if name == "conv3" else tap for name, tap in taps.items()}

    half = [*EXTRACT, "--dtype", "float16"]
    with monkeypatch.context() as patched:
        patched.setattr(ConvNet, "apply", louder)
        result = run(half, workspace)
    check_sentence(
        result,
        f"{D1}@final:conv3 reaches ",
        "float16 ends at 65504",
        "as float32 (--dtype float32)",
    )
    largest = float(result.stderr.split("reaches ")[1].split(",")[0])
    assert largest > 65504
    before = values(workspace.activations)
    assert run(half, workspace).exit_code == 0
    after = values(workspace.activations)
    for name, (found, commits) in before.items():
        assert after[name][0][: len(found)] == found
        assert after[name][1][: len(commits)] == commits


def test_an_overflow_of_the_writer_names_tap_and_value(tmp_path):
    meta = make_meta(dtype="float16", n_samples=8)
    first, second = batches(meta, make_rows(meta).astype(np.float32))
    with Writer.open(tmp_path, meta, *coordinates(meta)) as writer:
        writer.append(first)
        before = contents(tmp_path)
        second[1, 2, 0, 1] = -70_000
        with pytest.raises(ActivationOverflowError, match=r"final:conv1 reaches 70000, and float1"):
            writer.append(second)
        assert contents(tmp_path) == before
        writer.append(np.minimum(np.abs(second), 60_000))
    assert store.open(tmp_path)[meta.key].complete


BAD_NAMES = [
    "a/b",
    "../a",
    "a..b",
    ".a",
    "",
    "höhe",
    "层",
    "a b",
    "a\\b",
    "zarr.json",
    "a\n",
    "x" * 201,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_no_folders_are_refused(name):
    for kind in ("sample_set", "run", "checkpoint"):
        names = {"sample_set": "s", "run": "r", "checkpoint": "c", "tap": "t"} | {kind: name}
        with pytest.raises(InvalidKeyError, match="cannot be a folder's name; use up to 200"):
            RepresentationKey(**names)


@pytest.mark.parametrize("name", ["a/b", "../a", "a..b", "höhe", "层"])
def test_commands_refuse_such_names(whole, name):
    before = contents(whole.root)
    for command in (
        ["extract", name],
        [*EXTRACT, "--checkpoint", name],
        [*EXTRACT, "--split", name],
        ["train", "--prefix", name],
    ):
        result = run(command, whole)
        assert result.exit_code == 2
        line = last_line(result.stderr)
        assert "is not a name; use at most 100 letters, digits" in line
    assert contents(whole.root) == before


@pytest.mark.parametrize("name", ["a/b", "../a", "höhe", "层"])
def test_such_names_find_nothing(whole, name):
    for command in (
        ["compare", f"{name}@final", f"{D1}@final"],
        ["store", "rm", f"{name}@final", "--yes"],
        ["store", "du", f"{name}@final"],
    ):
        check_sentence(run(command, whole), name)


LINKED = {
    "sample set": SAMPLES,
    "run": f"{SAMPLES}/a",
    "checkpoint": f"{SAMPLES}/a/final",
    "tap": f"{SAMPLES}/a/final/one",
    "array": f"{SAMPLES}/a/final/one/activations",
    "chunk": f"{SAMPLES}/a/final/one/activations/c/0/0/0",
    "chunks": f"{SAMPLES}/a/final/one/activations/c",
    "coordinate": f"{SAMPLES}/a/final/one/label",
}
METADATA = f"{SAMPLES}/a/final/one/zarr.json"


@pytest.fixture(params=LINKED.values(), ids=LINKED.keys())
def linked(request, networks, tmp_path):
    """Return a workspace in whose store something is a link to outside."""
    shutil.copytree(networks.root, tmp_path / "outside", dirs_exist_ok=True)
    place, outside = networks.activations / request.param, tmp_path / "outside" / "activations.zarr"
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    place.symlink_to(outside / request.param)
    return networks


def test_links_that_lead_outside_are_not_read(linked, tmp_path):
    before = contents(tmp_path / "outside")
    check_sentence(run(COMPARE, linked), "symbolic link", "outside of the store")
    assert contents(tmp_path / "outside") == before


@pytest.fixture(
    params=[pytest.param(path, id=name) for name, path in (LINKED | {"metadata": METADATA}).items()]
)
def interrupted(request, tmp_path):
    """Return the metadata of an unfinished tap, in whose store something is a link to outside."""
    write_network(tmp_path / "store", A, make_taps(names=("one",)), n_committed=32)
    shutil.copytree(tmp_path / "store", tmp_path / "outside")
    meta = store.open(tmp_path / "store").find()[0].meta
    place = tmp_path / "store" / request.param
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    place.symlink_to(tmp_path / "outside" / request.param)
    return meta


def test_nothing_is_written_through_links_that_lead_outside(interrupted, tmp_path):
    before = contents(tmp_path / "outside")
    rows = batches(interrupted, make_taps(names=("one",))["one"])
    try:
        with Writer.open(tmp_path / "store", interrupted, *coordinates(interrupted)) as writer:
            for each in rows[writer.n_committed // 16 :]:
                writer.append(each)
        found = store.open(tmp_path / "store")[interrupted.key]
        np.testing.assert_array_equal(found.labels, coordinates(interrupted)[1])
        np.testing.assert_array_equal(found.read(0, 66), np.concatenate(rows))
    except StoreLocationError as error:
        assert "symbolic link" in str(error)  # noqa: PT017  # at whatever step it is found
    assert contents(tmp_path / "outside") == before


@pytest.mark.parametrize("link", ["c/2", "c/2/0", "c/2/0/0", "c/2/0/0.partial"])
def test_the_next_chunk_is_not_written_through_a_link(tmp_path, link):
    write_network(tmp_path / "store", A, make_taps(names=("one",)), n_committed=32)
    (tmp_path / "outside" / "0").mkdir(parents=True)
    (tap,) = store.open(tmp_path / "store").find()
    place = tap.place / "activations" / link
    rows = batches(tap.meta, make_taps(names=("one",))["one"])[2]
    with Writer.open(tmp_path / "store", tap.meta, *coordinates(tap.meta)) as writer:
        place.parent.mkdir(parents=True, exist_ok=True)
        is_file = link.count("/") > 2
        place.symlink_to(tmp_path / "outside" / ("file" if is_file else ""))
        if is_file:
            # A file of the chunk's name is replaced by the chunk, and a link is such a file.
            writer.append(rows)
            assert place.is_symlink() == link.endswith(".partial")
        else:
            with pytest.raises(StoreLocationError):
                writer.append(rows)
            assert writer.n_committed == 32
    assert [path.name for path in (tmp_path / "outside").rglob("*")] == ["0"]


def test_a_link_to_another_tap_of_the_store_is_not_written_through(tmp_path):
    write_network(tmp_path / "store", A, make_taps(names=("one",)))
    (one,) = store.open(tmp_path / "store").find()
    other = replace(one.meta, key=replace(one.key, tap="two"), tap_index=1)
    place = tmp_path / "store" / other.key.path
    place.mkdir()
    (place / "activations").symlink_to(one.place / "activations")
    before = contents(one.place)
    with pytest.raises(StoreLocationError, match="is a symbolic link, which no store makes"):
        Writer.open(tmp_path / "store", other, *coordinates(other))
    assert contents(one.place) == before


def test_links_that_lead_outside_are_not_removed_through(linked, tmp_path):
    before = contents(tmp_path / "outside")
    result = run(RM, linked)
    assert result.exit_code in (0, 1)
    if result.exit_code:
        check_sentence(result, "symbolic link")
    run(GC, linked)
    assert contents(tmp_path / "outside") == before


def test_what_gc_takes_is_extracted_again_bit_for_bit(workspace):
    both = [*EXTRACT, "--keep", "activations,grams"]
    compare = ["compare", f"{D1}@final", f"{D1}@final", "--batch-size", "32"]
    assert run(both, workspace).exit_code == 0
    before = values(workspace.activations)
    table = run(compare, workspace).stdout.split("\nfrom")[0]
    result = run(GC, workspace)
    assert result.exit_code == 0
    assert "superseded" in result.stdout
    assert values(workspace.activations) == {}
    shutil.rmtree(workspace.similarity)
    assert run(compare, workspace).stdout.split("\nfrom")[0] == table
    exact = [*compare[:3], "--estimator", "exact"]
    check_sentence(run(exact, workspace), "exact HSIC needs activations")
    assert run(EXTRACT, workspace).exit_code == 0
    assert values(workspace.activations) == before
    assert run(exact, workspace).exit_code == 0


def test_import_on_a_full_disk_goes_on_once_there_is_room(tmp_path):
    np.save(tmp_path / "one.npy", make_taps()["one"].repeat(100, axis=1))
    command = ["store", "import", str(tmp_path / "one.npy"), "--run", "theirs"]
    command += ["--dataset", "mine", "--split", "test", "--minibatch", "16"]
    full, whole = (Workspace.at(tmp_path / name) for name in ("full", "whole"))
    with largest_file(20_000):
        check_sentence(run(command, full), os.strerror(errno.EFBIG))
    assert run(command, full).exit_code == 0
    assert run(command, whole).exit_code == 0
    assert values(full.activations) == values(whole.activations)


@pytest.mark.parametrize("name", ["a/b", "../a", "a..b", "höhe", "层"])
@pytest.mark.parametrize("option", ["--run", "--checkpoint", "--dataset", "--split"])
def test_import_refuses_names_that_are_no_folders(tmp_path, name, option):
    np.save(tmp_path / "one.npy", make_taps()["one"])
    names = {"--run": "theirs", "--dataset": "mine", "--split": "test"} | {option: name}
    words = [word for pair in names.items() for word in pair]
    workspace = Workspace.at(tmp_path / "workspace")
    result = run(["store", "import", str(tmp_path / "one.npy"), *words], workspace)
    assert result.exit_code in (1, 2), result.output
    assert repr(name) in last_line(result.stderr)
    assert not workspace.root.exists()
