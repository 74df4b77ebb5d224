"""A network as a value: hashable, so that it can be a static argument of a jitted function."""

from abc import ABC, abstractmethod
from typing import Any, Literal, NamedTuple

Precision = Literal["float32", "bfloat16"]
"""The precision of the forward and backward pass of training."""


class Variables(NamedTuple):
    """The arrays of a network that a checkpoint keeps, in nested dictionaries.

    ``inputs`` holds the mean and standard deviation of the training pixels, so that a checkpoint
    takes uint8 images and nothing else has to normalise them the same way again.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    inputs: dict[str, Any]


class Network(ABC):
    """A network that computes activations; a subclass is a frozen dataclass."""

    input_channels: int
    image_size: int
    """Side of the images in pixels."""

    @property
    @abstractmethod
    def taps(self) -> tuple[str, ...]:
        """The names of the recorded outputs, in order, ending with ``logits``."""

    @abstractmethod
    def init(self, key: Any, mean: Any, std: Any) -> Variables:
        """Draw initial variables for images whose pixels (0 to 255) have this mean and spread."""

    @abstractmethod
    def apply(self, variables: Variables, images: Any) -> dict[str, Any]:
        """Return every tap of uint8 images (n, h, w, c), in order, as in evaluation."""

    @abstractmethod
    def apply_train(
        self, variables: Variables, images: Any, key: Any, precision: Precision = "float32"
    ) -> tuple[Any, dict[str, Any]]:
        """Return the logits as in training, and the updated running statistics."""

    @property
    def parameter_bytes(self) -> int | None:
        """Bytes of the parameters, about; None to count them by tracing ``init``."""
        return None

    @property
    def n_outputs(self) -> int | None:
        """Numbers that the layers give of one image; None to count them by tracing ``apply``."""
        return None
