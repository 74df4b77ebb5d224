"""A perceptron of two layers on images."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from allcnn.definitions.bounds import Bounds
from allcnn.definitions.fields import setting
from allcnn.networks.architectures import Architecture
from allcnn.networks.network import Network, Variables
from allcnn.networks.variables import input_statistics, normalised

HIDDEN = Bounds(1, 100_000)


@dataclass(frozen=True)
class Perceptron(Architecture):
    """Pixels to hidden units to classes."""

    name: ClassVar[str] = "perceptron"

    hidden: int = setting(32, "hidden units", HIDDEN, metavar="N")

    @property
    def label(self) -> str:
        """The name with its hidden units."""
        return f"mlp{self.hidden}"

    def network(self, n_classes: int, input_channels: int, image_size: int) -> Network:
        """Return the network."""
        return _Network(self.hidden, n_classes, input_channels, image_size)


@dataclass(frozen=True)
class _Network(Network):
    hidden: int
    n_classes: int
    input_channels: int
    image_size: int

    @property
    def taps(self) -> tuple[str, ...]:
        return "hidden", "logits"

    def init(self, key: Any, mean: Any, std: Any) -> Variables:
        first, second = jax.random.split(key)
        pixels = self.image_size**2 * self.input_channels
        params = {
            "hidden": _dense(first, pixels, self.hidden),
            "logits": _dense(second, self.hidden, self.n_classes),
        }
        return Variables(params, {}, input_statistics(mean, std))

    def apply(self, variables: Variables, images: Any) -> dict[str, Any]:
        params, _, inputs = variables
        x = normalised(images, inputs["mean"], inputs["std"]).reshape(len(images), -1)
        hidden = jax.nn.relu(_affine(params["hidden"], x))
        return {"hidden": hidden, "logits": _affine(params["logits"], hidden)}

    def apply_train(
        self, variables: Variables, images: Any, key: Any, precision: Any = "float32"
    ) -> tuple[Any, dict[str, Any]]:
        return self.apply(variables, images)["logits"], {}


def _dense(key: Any, n_in: int, n_out: int) -> dict[str, Any]:
    kernel = jax.random.normal(key, (n_in, n_out)) / jnp.sqrt(jnp.float32(n_in))
    return {"kernel": kernel, "bias": jnp.zeros(n_out)}


def _affine(params: dict[str, Any], x: Any) -> Any:
    return x @ params["kernel"] + params["bias"][None]
