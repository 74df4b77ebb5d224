"""docs/extending.md does what it says: its files are written, and its code is run as it stands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from flows.cli.main import main
from tests.readme import ROOT

PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(
    r"(?:^<!-- file: (?P<file>[\w.]+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def run_line(line: str, folder: Path) -> None:
    words = shlex.split(line)
    if words[0] == "allcnn":
        found = CliRunner().invoke(main, words[1:], prog_name="allcnn")
        assert found.exit_code == 0, f"{line}: {found.output}"
    else:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, *words[1:]]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


def test_every_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    blocks = list(BLOCK.finditer(PAGE.read_text(encoding="utf-8")))
    kinds = [("file" if each["file"] else each["language"]) for each in blocks]
    assert [kinds.count(kind) for kind in ("file", "sh", "python")] == [4, 4, 2]
    for each in blocks:
        if each["file"]:
            (tmp_path / each["file"]).write_text(each["text"], encoding="utf-8")
        elif each["language"] == "sh":
            for line in each["text"].splitlines():
                run_line(line, tmp_path)
        else:
            names: dict[str, object] = {"__name__": "extending"}
            exec(compile(each["text"], str(PAGE), "exec"), names)
            if "values" in names:
                assert names["values"][0, 0] == pytest.approx(1, abs=1e-6)
                assert 0.2 < names["values"][0, 1] < 0.6
    with Image.open(tmp_path / "measures.png") as picture:
        assert picture.width > 300
    runs = {path.name for path in (tmp_path / "workspace" / "runs").iterdir()}
    assert {"ext-d1-v2-s0", "ext-mlp24-s0"} <= runs


@pytest.fixture(autouse=True)
def forgotten():
    """Forget the modules of the page, which another test may have under the same names."""
    yield
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]
