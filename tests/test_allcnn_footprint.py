"""The memory that work takes at least: refused before any is allocated."""

import jax
import numpy as np
import pytest

from allcnn import machine_memory
from allcnn.datasets import splits
from allcnn.datasets.splits import Outline
from allcnn.errors import ConfigError
from allcnn.settings.run import RunConfig
from allcnn.training import footprint, loop
from allcnn.workspace.paths import Workspace

CONFIG = RunConfig.of(image_size=16, width=0.1, batch_size=8, epochs=1)


def test_outputs_are_counted_as_the_network_gives_them():
    network = CONFIG.architecture.network(10, 1, 16)
    variables = network.init(jax.random.key(0), np.zeros(1), np.ones(1))
    n_parameters = sum(leaf.size for leaf in jax.tree.leaves(variables.params) if leaf.ndim == 4)
    assert network.parameter_bytes == 4 * n_parameters
    taps = network.apply(variables, np.zeros((8, 16, 16, 1), np.uint8))
    n_outputs = sum(taps[name].size for name in network.blocks)
    assert network.n_outputs == n_outputs // 8
    assert footprint.training_bytes(network, CONFIG) == 12 * n_parameters + 4 * n_outputs


def test_what_does_not_fit_is_refused_before_images_are_read(monkeypatch, tmp_path):
    monkeypatch.setattr(footprint, "host_bytes", lambda: 10**6)
    monkeypatch.setattr(machine_memory, "host_bytes", lambda: 10**6)
    monkeypatch.setattr(splits, "load", None)
    message = r"digits at --image-size 64 takes at least 7 MB of memory, and there are 1 MB; use sm"
    with pytest.raises(ConfigError, match=message):
        loop.train(RunConfig.of(image_size=64), Workspace.at(tmp_path))
    message = r"training .* takes at least .* of memory, and there are 1 MB; use smaller images, "
    with pytest.raises(ConfigError, match=message):
        loop.train(RunConfig.of(image_size=16, batch_size=512), Workspace.at(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_runs_together_take_as_much_as_all_of_them(monkeypatch):
    network = CONFIG.architecture.network(10, 1, 16)
    n_bytes = footprint.training_bytes(network, CONFIG)
    monkeypatch.setattr(footprint, "host_bytes", lambda: 2 * n_bytes)
    monkeypatch.setattr(machine_memory, "host_bytes", lambda: 2 * n_bytes)
    outline = Outline(8, 2, 1, 10)
    footprint.check_training(outline, CONFIG, 2)
    with pytest.raises(ConfigError, match="takes at least"):
        footprint.check_training(outline, CONFIG, 3)


@pytest.mark.parametrize(("limit", "taken"), [("1000\n", True), ("max\n", False), ("", False)])
def test_a_container_has_what_it_may_use(monkeypatch, tmp_path, limit, taken):
    file = tmp_path / "memory.max"
    file.write_text(limit)
    monkeypatch.setattr(machine_memory, "_CGROUPS", (file, tmp_path / "absent"))
    assert (machine_memory.host_bytes() == 1000) == taken
