"""Shared by the convolutional architectures: layers as data, and the network made of them."""

from abc import abstractmethod
from typing import Final

from allcnn.definitions.bounds import Bounds
from allcnn.networks.architectures.base import Architecture
from allcnn.networks.architectures.layers import Conv, Layers
from allcnn.networks.network import Network

DEPTH: Final = Bounds(1, 170)
"""1,193 layers, as many as the deepest network that was trained on CIFAR-10 (He et al. 2016)."""

WIDTH: Final = Bounds(1e-3, 1000, whole=False)
"""From one channel everywhere to 192,000: far more than fit anywhere, and still 32-bit sizes."""


class Convolutional(Architecture):
    """An architecture of convolutions, batch norm and ReLU."""

    @abstractmethod
    def layers(self, n_classes: int) -> Layers:
        """Return the layers for ``n_classes`` classes."""

    def network(self, n_classes: int, input_channels: int, image_size: int) -> Network:
        """Return the network for images of a data set."""
        # Here, so that names and settings cost no import of Flax.
        from allcnn.networks.architectures.convnet import ConvNet  # noqa: PLC0415

        return ConvNet(self.layers(n_classes), n_classes, input_channels, image_size)


def channels(published: int, width: float) -> int:
    """Return a published number of channels times the width, at least one."""
    return max(1, round(published * width))


def kornblith(n: int, narrow: int, wide: int) -> Layers:
    """Return the layers of Plain-(8n + 2) of Kornblith et al. (2019, appendix E)."""
    blocks = (
        *[Conv(narrow)] * (3 * n - 1),
        Conv(narrow, stride=2),
        *[Conv(wide)] * (3 * n - 1),
        Conv(wide, stride=2),
        *[Conv(wide)] * (n - 1),
        Conv(wide, padding="VALID"),
        *[Conv(wide, kernel=1)] * n,
    )
    return Layers(blocks, is_linear=True)
