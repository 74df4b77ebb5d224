"""Shared by the convolutional architectures: layers as data, and the network made of them."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Final, Literal

from allcnn.definitions.bounds import Bounds
from allcnn.definitions.fields import setting
from allcnn.networks.architectures.base import Architecture
from allcnn.networks.network import Network

DEPTH: Final = Bounds(1, 170)
"""1,193 layers, as many as the deepest network that was trained on CIFAR-10 (He et al. 2016)."""

WIDTH: Final = Bounds(1e-3, 1000, whole=False)
"""From one channel everywhere to 192,000: far more than fit anywhere, and still 32-bit sizes."""


@dataclass(frozen=True)
class Conv:
    """One block: convolution without bias, batch norm, ReLU, and perhaps dropout after it."""

    features: int
    kernel: int = 3
    stride: int = 1
    padding: Literal["SAME", "VALID"] = "SAME"
    dropout: float = 0.0


@dataclass(frozen=True)
class Layers:
    """A convolutional network without its data set."""

    blocks: tuple[Conv, ...]  # their outputs are the taps ``conv1``, ``conv2``, …
    is_linear: bool
    """Whether a linear layer follows the mean over space, which is the tap ``pooled`` then."""
    input_dropout: float = 0.0  # the share of input values that training sets to zero


class Convolutional(Architecture):
    """An architecture of convolutions, batch norm and ReLU."""

    width: float
    """The factor on published numbers of channels."""

    @abstractmethod
    def layers(self, n_classes: int) -> Layers:
        """Return the layers for ``n_classes`` classes."""

    def network(self, n_classes: int, input_channels: int, image_size: int) -> Network:
        """Return the network for images of a data set."""
        # Here, so that names and settings cost no import of Flax.
        from allcnn.networks.architectures.convnet import ConvNet  # noqa: PLC0415

        return ConvNet(self.layers(n_classes), n_classes, input_channels, image_size)

    def scaled(self, published: int) -> int:
        """Return a published number of channels times the width, at least one."""
        return max(1, round(published * self.width))


def width_of(of: str) -> Any:
    """Return the setting of a factor on published numbers of channels."""
    return setting(0.25, f"factor on the {of}, {WIDTH}", WIDTH, metavar="FACTOR")


def three_by_three(n: int, narrow: int, wide: int, dropout: float = 0.0) -> tuple[Conv, ...]:
    """Return the 3 x 3 convolutions that All-CNN-C and Plain-(8n + 2) have in common."""
    return (
        *[Conv(narrow)] * (3 * n - 1),
        Conv(narrow, stride=2, dropout=dropout),
        *[Conv(wide)] * (3 * n - 1),
        Conv(wide, stride=2, dropout=dropout),
        *[Conv(wide)] * (n - 1),
        Conv(wide, padding="VALID"),
    )


def kornblith(n: int, narrow: int, wide: int) -> Layers:
    """Return the layers of Plain-(8n + 2) of Kornblith et al. (2019, appendix E)."""
    blocks = (*three_by_three(n, narrow, wide), *[Conv(wide, kernel=1)] * n)
    return Layers(blocks, is_linear=True)
