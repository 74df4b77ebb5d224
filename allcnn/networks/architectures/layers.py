"""Convolutional layers as data."""

from dataclasses import dataclass
from typing import Literal


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
    """A convolutional network without its data set.

    Attributes:
        blocks: in order; their outputs are the taps ``conv1``, ``conv2``, ….
        is_linear: whether a linear layer follows the mean over space, which is the tap ``pooled``
            then; else that mean is the logits.
        input_dropout: the share of input values that training sets to zero.
    """

    blocks: tuple[Conv, ...]
    is_linear: bool
    input_dropout: float = 0.0
