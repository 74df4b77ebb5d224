"""Commands that only look import nothing that takes long to import."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

HEAVY = ("jax", "flax", "orbax", "optax", "dask", "distributed", "prefect", "matplotlib")
LOOKING = (
    "--version",
    "store ls",
    "store show old-d1-v2-s0@final",
    "store du",
    "run ls",
    "run show old-d1-v2-s0",
)
ASKED = """
import contextlib, io, json, sys
from flows.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(json.loads(sys.argv[1]), prog_name="allcnn")
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def modules_of(*arguments: str) -> set[str]:
    """Return the top-level modules that a command imports, in a process of its own."""
    command = [sys.executable, "-c", ASKED, json.dumps(arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(found.stdout))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(Path(__file__).with_name("data") / "workspace-v2.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("line", LOOKING)
def test_nothing_heavy_is_imported(line, old):
    where = [] if line == "--version" else ["--workspace", str(old)]
    assert set(HEAVY) & modules_of(*line.split(), *where) == set()


def test_what_computes_is_seen_to_import(old):
    """Else the tests above could not fail."""
    assert "jax" in modules_of("store", "gc", "--dry-run", "--workspace", str(old))
