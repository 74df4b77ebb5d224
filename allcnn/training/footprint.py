"""The memory that a network takes at least on the device that it runs on."""

from typing import Final

import jax

from allcnn.datasets.splits import Outline
from allcnn.machine_memory import check_room, host_bytes
from allcnn.networks.network import Network
from allcnn.networks.variables import n_outputs, parameter_bytes
from allcnn.settings.run import RunConfig

_COPIES: Final = 3
"""Copies of each parameter in training: itself, its momentum and its gradient."""


def check_training(data: Outline, config: RunConfig, n_runs: int) -> None:
    """Raise ConfigError where the images, or the steps of runs trained together, cannot fit."""
    check_room(
        f"the data set {config.dataset} at --image-size {config.image_size}",
        (data.n_train + data.n_test) * config.image_size**2 * data.n_channels,
        "use smaller images",
    )
    network = config.architecture.network(data.n_classes, data.n_channels, config.image_size)
    check_room(
        f"training {config.name} at --image-size {config.image_size} in batches of"
        f" {config.batch_size}",
        n_runs * training_bytes(network, config),
        "use smaller images, smaller batches, or a smaller --width or --depth",
        device_bytes(),
    )


def training_bytes(network: Network, config: RunConfig) -> int:
    """Return the bytes of parameters, and of the outputs that a backward pass goes back through."""
    size = 2 if config.precision == "bfloat16" else 4
    return _COPIES * parameter_bytes(network) + config.batch_size * size * n_outputs(network)


def device_bytes() -> int:
    """Return the memory of the device that networks run on: its own, or the machine's."""
    device = jax.local_devices()[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    return int(stats["bytes_limit"]) if stats and "bytes_limit" in stats else host_bytes()
