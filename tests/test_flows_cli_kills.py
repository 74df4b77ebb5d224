"""Training by the command line, killed or out of disk: not a bit of the result changes."""

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from allcnn.networks.variables import abstract
from allcnn.workspace import checkpoints, run_record
from allcnn.workspace.paths import Workspace, kept_digests
from tests.commands import succeed

RUN = "allcnn-d1-v1-s0"
TRAIN = ["train", "--image-size", "12", "--width", "0.05", "--variant", "v1", "--batch-size", "32"]
TRAIN += ["--epochs", "200", "--checkpoint-every", "1"]
N_KILLS = 20


def leaves(place: Workspace, name: str) -> list[np.ndarray]:
    like = abstract(run_record.read_record(place, RUN).network)
    folder = place.find_checkpoint(RUN, name)
    return [np.asarray(x) for x in jax.tree.leaves(checkpoints.load_variables(folder, like)[0])]


def _kill_after(delay_s: float, place: Workspace, *, early: bool) -> None:
    """Train, and kill the process so long after its start, or after its first new checkpoint."""
    known = len(place.checkpoints(RUN))
    command = [sys.executable, "-m", "flows.cli.main", *TRAIN, "--workspace", str(place.root)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as one:
        while not early and one.poll() is None and len(place.checkpoints(RUN)) <= max(known, 1):
            time.sleep(0.02)
        time.sleep(delay_s)
        one.kill()
    assert one.returncode == -signal.SIGKILL, "it was finished before it was killed often enough"


@pytest.mark.slow
def test_twenty_kills_change_no_bit(tmp_path: Path) -> None:
    whole, killed = Workspace.at(tmp_path / "whole"), Workspace.at(tmp_path / "killed")
    succeed(*TRAIN, workspace=whole)
    draw = random.Random(0)
    found = []
    for _ in range(N_KILLS):
        # One in four while it starts or compiles, the others within some epochs of a checkpoint.
        early = draw.random() < 0.25
        _kill_after(draw.uniform(1, 9) if early else draw.uniform(0, 0.8), killed, early=early)
        found.append(len(killed.checkpoints(RUN)))
    assert found == sorted(found)
    assert len(set(found)) > N_KILLS // 2  # it got further between kills
    succeed(*TRAIN, workspace=killed)
    assert killed.checkpoints(RUN) == whole.checkpoints(RUN)
    for name in ("init", "epoch-0050", "final"):
        for one, other in zip(leaves(killed, name), leaves(whole, name), strict=True):
            np.testing.assert_array_equal(one, other)
    curves = [
        [row._replace(wall_s=0) for row in run_record.read_history(place, RUN)]
        for place in (killed, whole)
    ]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_training_goes_on_once_there_is_room(small_disk, tmp_path):
    disk, resize = small_disk
    settings = ["--width", "0.05", "--epochs", "12", "--checkpoint-every", "1"]
    words = ["train", "--image-size", "12", *settings]
    run, full, whole = "allcnn-d1-v2-s0", Workspace.at(disk / "w"), Workspace.at(tmp_path / "whole")
    resize(700_000)
    command = [sys.executable, "-m", "flows.cli.main", *words, "--workspace", str(full.root)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    *progress, sentence = re.split(r"[\r\n]+", found.stderr.strip())
    assert all(line.startswith(("[", "training")) for line in progress)
    assert re.fullmatch(
        r"Error: (the checkpoint \S+ cannot be written \(.*\); earlier ones are"
        r"|cannot write \S+history.json: No space left on device; what was written before is)"
        " safe, so fix that and run again",
        sentence,
    )
    n_kept = len(full.checkpoints(run))
    assert 1 < n_kept < 13
    resize(64 * 2**20)
    succeed(*words, workspace=full)
    succeed(*words, workspace=whole)
    for place in (full, whole):
        assert len(place.checkpoints(run)) == 13
    kept = [kept_digests(place.find_checkpoint(run, "final")) for place in (full, whole)]
    assert kept[0] == kept[1]
