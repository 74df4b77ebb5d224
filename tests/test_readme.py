"""README.md is true: every command in it exists, and every block runs, one after another, twice."""

import os
import subprocess
import sys
from pathlib import Path

import click
import h5py
import numpy as np
import pytest

from allcnn.similarity.method import Method
from flows.cli.main import main
from flows.runtime.embedded import PARAMETERS
from flows.settings.shared import check_effective
from tests import readme

MARKED = [block for block in readme.blocks() if block.why_not]


def parsed(words: list[str]) -> click.Context:
    """Return what a command line means; raises what click says of one that means nothing."""
    context = click.Context(main)
    command: click.Command = main
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        context, command = click.Context(found, context, name), found
    return command.make_context(context.info_name, list(words), context.parent)


@pytest.mark.parametrize("words", readme.commands(), ids=" ".join)
def test_every_command_can_be_typed(words):
    context = parsed(words)
    source = click.core.ParameterSource.COMMANDLINE
    given = [name for name in context.params if context.get_parameter_source(name) is source]
    check_effective(given, context.params)
    if "measure" in context.params:
        named = {name: each for name, each in context.params.items() if name in Method.settings()}
        assert Method.several(named, named.keys() & {*given})


@pytest.mark.parametrize("words", readme.inline_commands(), ids=" ".join)
def test_every_command_in_a_sentence_exists(words):
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group) and rest and rest[0] != "COMMAND":
        found = command.get_command(click.Context(command), rest.pop(0))
        assert found is not None
        command = found
    options = {name for each in command.params for name in each.opts} | {"--help"}
    assert [word for word in rest if word.startswith("--") and word not in options] == []


@pytest.mark.parametrize(("flow", "settings"), list(readme.settings()))
def test_every_setting_of_a_flow_exists(flow, settings):
    assert PARAMETERS[flow](**settings).title


def test_few_blocks_are_not_run():
    assert len(readme.blocks()) - len(MARKED) > 25
    assert len({block.why_not for block in MARKED}) <= 5


def files_of_another_program(folder: Path) -> None:
    """Write what a reader has who imports activations."""
    rng = np.random.default_rng(0)
    layer = rng.standard_normal((599, 8, 4, 4)).astype(np.float32)
    np.savez(folder / "mine.npz", hidden=layer.reshape(599, -1), output=layer[:, :, 0, 0])
    np.save(folder / "layer1.npy", layer)
    np.save(folder / "layer2.npy", layer[:, :, ::2, ::2])
    labels = rng.integers(10, size=599)
    np.save(folder / "labels.npy", labels)
    with h5py.File(folder / "all.h5", "w") as file:
        file["features/0"], file["fc"], file["targets"] = layer, layer[:, :, 0, 0], labels


def shell(block: readme.Block, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-e", "-c", block.code],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"line {block.line}: {block.code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
def test_every_block_runs_and_runs_again(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(tmp_path)
    files_of_another_program(tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    places = {"HOME": str(home), "TFDS_DATA_DIR": str(home / "data")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | places | {"PATH": path}
    # Blocks of Python go on where those before them ended, as in a notebook.
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        names: dict[str, object] = {}
        for block in readme.blocks():
            if block.why_not or not block.language:
                continue
            if block.language == "sh":
                shell(block, environment)
            elif "import torch" not in block.text or has_torch():
                exec(compile(block.code, f"README.md:{block.line}", "exec"), names)


def has_torch() -> bool:
    """Return whether PyTorch is here, which nothing else but one block needs."""
    try:
        import torch  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True
