"""Commands and flows on a workspace at an address: in memory, and at moto's S3 server."""

import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import store
from allcnn.errors import RunError, WorkspaceError
from allcnn.networks.variables import abstract
from allcnn.training import loop
from allcnn.workspace import checkpoints, run_record
from allcnn.workspace.paths import WHOLE, Workspace, read_json, write_json
from allcnn.workspace.remote_folders import brought, taken
from flows.cli.main import main
from flows.settings.parameters import ExtractParameters
from store import StoreLocationError
from store.storage.paths import as_place, walk_files, write_bytes
from tests import s3
from tests.conftest import SMALL

RUN = "small-d1-v2-s0"
NETWORK = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.to_json().items()]


@pytest.fixture(scope="module")
def server():
    with s3.serving() as url:
        yield url


@pytest.fixture(params=["memory", "s3"])
def address(request, server):
    bucket = "s3://bucket" if request.param == "s3" else "memory://bucket"
    return f"{bucket}/{secrets.token_hex(4)}/workspace"


@pytest.fixture(scope="module")
def uploaded(server, trained):
    """Return the address of a copy of the trained workspace: nobody writes to it."""
    address = "s3://bucket/uploaded"
    copy_up(trained.root, address)
    return address


def copy_up(root, address):
    place = as_place(address)
    for name, _, _ in walk_files(root):
        write_bytes(place / name, (root / name).read_bytes())


def call(*arguments):
    """Run a command in this process; return what it prints."""
    found = CliRunner().invoke(main, list(arguments))
    assert found.exit_code == 0, found.output
    return found.stdout


def fail(*arguments):
    """Run a command that fails; return its sentence and its status."""
    found = CliRunner().invoke(main, list(arguments))
    assert isinstance(found.exception, SystemExit), found.exception
    assert "Traceback" not in found.output
    return found.stderr.strip().splitlines()[-1], found.exit_code


def names_in(place, suffix=""):
    return [name for name, _, _ in walk_files(place) if name.endswith(suffix)]


@pytest.mark.slow
def test_every_step_works_on_s3_and_gives_what_it_gives_locally(server, trained, tmp_path):
    address = f"s3://bucket/{secrets.token_hex(4)}"
    local = shutil.copytree(trained.root, tmp_path / "local")
    assert call("train", *NETWORK, "--workspace", address).split() == [RUN]
    printed = {}
    for place in (address, str(local)):
        extract = ["extract", RUN, "--checkpoint=all", "--samples=32", "--batch-size=16"]
        call(*extract, "--workspace", place)
        pair = [f"{RUN}@init", f"{RUN}@final", "--batch-size=16"]
        printed[place] = call("compare", *pair, "--workspace", place)
        assert "activations of 20 representations" in printed[place]
        listed = call("store", "ls", "--workspace", place)
        assert listed.count("complete") >= 3
    assert printed[address].replace(address, str(local)) == printed[str(local)]
    assert len(names_in(as_place(address) / "figures", ".png")) == 1
    # The same chunks and commits, and the same picture; metadata tell the time.
    for name in (name for name in names_in(local) if not name.endswith("json")):
        if name.startswith(("activations", "grams", "figures")):
            assert (as_place(address) / name).read_bytes() == (local / name).read_bytes(), name
    with s3.counted() as asked:
        call("compare", *pair, "--workspace", address)  # known by now
    assert asked["put_object"] == 1  # the picture
    assert asked.total() <= 120


def test_training_goes_on_from_the_last_whole_checkpoint(address, trained, monkeypatch):
    workspace = Workspace.at(address)
    real, saved = checkpoints.save, []

    def dies(folder, state):
        saved.append(folder.name)
        if len(saved) == 2:
            raise KeyboardInterrupt
        real(folder, state)

    monkeypatch.setattr(checkpoints, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        loop.train(SMALL, workspace)
    assert (workspace.runs(), workspace.checkpoints(RUN)) == ([RUN], ["init"])
    monkeypatch.setattr(checkpoints, "save", real)
    assert loop.train(SMALL, workspace) == RUN
    assert workspace.checkpoints(RUN) == ["init", "epoch-0001", "final"]
    like = abstract(run_record.read_record(workspace, RUN).network)
    found, wanted = (
        checkpoints.digest(checkpoints.load_variables(each.find_checkpoint(RUN, "final"), like)[0])
        for each in (workspace, trained)
    )
    assert found == wanted
    assert loop.train(SMALL, workspace) == RUN  # at once


def test_a_checkpoint_counts_once_it_is_whole(server, address, trained):
    copy_up(trained.root, address)
    workspace = Workspace.at(address)
    folder = workspace.checkpoints_folder(RUN) / "epoch-0001"
    (folder / WHOLE).unlink()
    assert workspace.checkpoints(RUN) == ["init", "final"]
    with pytest.raises(RunError, match=r"no checkpoint 'epoch-0001'; choose one of: init, final"):
        workspace.find_checkpoint(RUN, "epoch-0001")


@pytest.mark.parametrize("step", ["rm", "put", "put_file"])
def test_the_decisive_file_goes_first_and_comes_last(address, monkeypatch, step):
    place = as_place(address)
    with taken(place, last="last") as folder:
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "other").write_text("old")
        (folder / "last").write_text("old")
    monkeypatch.setattr(place.fs, step, torn)
    with pytest.raises(OSError, match="torn"):
        replace(place)
    assert not (place / "last").exists()


def replace(place):
    with taken(place, last="last") as folder:
        folder.mkdir()
        for name in ("other", "last"):
            (folder / name).write_text("new")


def torn(*args, **kwargs):
    raise OSError("torn")


def test_replacing_a_checkpoint_leaves_nothing_of_the_old_one(address):
    place = as_place(address)
    for names in (["old", "last"], ["new", "last"]):
        with taken(place, last="last") as folder:
            folder.mkdir()
            for name in names:
                (folder / name).write_text(name)
    assert sorted(names_in(place)) == ["last", "new"]


def test_a_name_that_leads_outside_is_not_downloaded(server, tmp_path, monkeypatch):
    place = as_place(f"s3://bucket/{secrets.token_hex(4)}/final")
    place.fs.pipe_file(f"{place.path}/../../escaped", b"mine")
    place.fs.pipe_file(f"{place.path}/harmless", b"mine")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(WorkspaceError, match=r"holds the name '\.\./\.\./escaped', which leads"):
        with brought(place, lambda name: True):
            pass
    assert list(tmp_path.rglob("*")) == []


def test_only_what_is_evaluated_is_downloaded(uploaded, trained):
    workspace = Workspace.at(uploaded)
    like = abstract(run_record.read_record(workspace, RUN).network)
    with s3.counted() as loading:
        found = checkpoints.load_variables(workspace.find_checkpoint(RUN, "final"), like)[0]
    local = trained.find_checkpoint(RUN, "final")
    others = ("optimiser", "position")
    n_needed = len([name for name in names_in(local) if not name.startswith(others)])
    assert loading["get_object"] == n_needed
    wanted = checkpoints.load_variables(local, like)[0]
    assert checkpoints.digest(found) == checkpoints.digest(wanted)


def test_a_damaged_checkpoint_is_named_by_its_address(address, trained):
    copy_up(trained.root / "runs" / RUN, f"{address}/runs/{RUN}")
    workspace = Workspace.at(address)
    folder = workspace.find_checkpoint(RUN, "final")
    content = (folder / WHOLE).read_bytes()
    write_bytes(folder / WHOLE, content.replace(b"sha256:", b"sha256:0"))
    like = abstract(run_record.read_record(workspace, RUN).network)
    sentence = rf"^the checkpoint {address}/runs/.*final cannot be read \(.*\); restore it from"
    with pytest.raises(RunError, match=sentence):
        checkpoints.load_variables(folder, like)[0]


def test_json_is_there_and_back(address):
    file = as_place(address) / "x.json"
    write_json(file, {"a": [1, None, "ü"]})
    assert read_json(file) == {"a": [1, None, "ü"]}
    write_bytes(file, b"{")
    with pytest.raises(WorkspaceError, match=r"x\.json is no JSON"):
        read_json(file)


def test_flows_take_the_address_as_it_is(uploaded):
    settings = ExtractParameters(workspace=uploaded, run=RUN)
    workspace = settings.place()
    assert str(workspace.root) == uploaded
    assert workspace.runs() == [RUN, RUN.replace("d1", "d2")]


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        (["train", *NETWORK], "s3://nobody/x"),
        (["extract", RUN], "s3://nobody/x"),
        (["compare", "a@final", "b@final"], "s3://nobody/x"),
        (["store", "ls"], "s3://nobody/x"),
        (["store", "ls"], "s3://"),
        (["store", "ls"], "nothing://x"),
        (["demo"], "nothing://x"),
    ],
)
def test_an_address_that_is_none_ends_a_command_at_once(server, arguments, address):
    sentence, status = fail(*arguments, "--workspace", address)
    assert sentence.startswith(f"Error: {address}")
    assert status == 1


def test_nothing_there_yet_is_said(address):
    sentence, status = fail("extract", RUN, "--workspace", address)
    assert sentence.startswith(f"Error: no run '{RUN}' in {address}; there are no runs yet")
    assert status == 1
    sentence, status = fail("store", "ls", "--workspace", address)
    assert address in sentence
    assert status == 1


def run_command(*arguments, **changes):
    """Run a command in a process of its own."""
    began = time.monotonic()
    environment = {k: v for k, v in (os.environ | changes).items() if v is not None}
    found = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-m", "flows.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
        cwd=Path(__file__).parent.parent,
    )
    return found, time.monotonic() - began


@pytest.mark.slow
def test_a_process_of_its_own_works_on_s3(uploaded):
    options = ["--samples=16", "--batch-size=16", "--keep=grams"]
    found, _ = run_command("extract", RUN, *options, "--workspace", uploaded)
    assert (found.returncode, found.stdout.split("-")[0]) == (0, "digits"), found.stderr
    assert "warning" not in found.stderr.lower()
    assert "linear-whole-16" in call("store", "ls", "--workspace", uploaded)


_FLOWS = """
import sys
from flows.compare import compare
from flows.extract import extract
from flows.settings.parameters import CompareParameters, ExtractParameters

workspace, run = sys.argv[1:]
what = {"workspace": workspace, "batch_size": 16}
extract(ExtractParameters(run=run, checkpoint="all", n_samples=16, **what))
print(*compare(CompareParameters(rows=f"{run}@init", columns=f"{run}@final", **what)))
"""


@pytest.mark.slow
def test_flows_work_on_s3(server, trained, tmp_path):
    address = f"s3://bucket/{secrets.token_hex(4)}"
    copy_up(trained.root, address)
    found = subprocess.run(
        [sys.executable, "-c", _FLOWS, address, RUN],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PREFECT_HOME": str(tmp_path)},
        cwd=Path(__file__).parent.parent,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == store.list_results(f"{address}/similarity.zarr")


def test_no_credentials_are_one_sentence(server, uploaded):
    with s3.leading_to(server, AWS_ACCESS_KEY_ID=None):
        sentence, status = fail("store", "ls", "--workspace", uploaded)
    assert sentence.startswith(f"Error: {uploaded} cannot be reached (NoCredentialsError")
    assert status == 1


def test_a_server_that_is_down_is_one_sentence_in_time(uploaded):
    found, wall_s = run_command(
        "store", "ls", "--workspace", uploaded, AWS_ENDPOINT_URL="http://127.0.0.1:1"
    )
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.startswith(f"Error: {uploaded} cannot be reached")
    assert "Could not connect to the endpoint" in found.stderr
    assert found.stderr.count("\n") == 1
    assert wall_s < 60


def test_a_missing_package_is_named_with_what_installs_it():
    code = "import sys; sys.modules['s3fs'] = None; from flows.cli.main import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", code, "store", "ls", "--workspace", "s3://bucket/x"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert found.returncode == 1
    assert found.stderr.endswith("install its package with pip install s3fs\n")


def test_a_local_address_is_a_folder(tmp_path):
    assert Workspace.at(f"file://{tmp_path}").root == tmp_path
    with pytest.raises(StoreLocationError, match="names no bucket"):
        Workspace.at("s3://")


def test_learning_curves_are_read(uploaded, trained):
    found = run_record.read_history(Workspace.at(uploaded), RUN)
    assert np.isfinite(found[-1].test_loss)
    assert found == run_record.read_history(trained, RUN)
