"""Softmax regression on powers of pixels, with a recipe of its own."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from allcnn.definitions.bounds import Bounds
from allcnn.definitions.fields import setting
from allcnn.networks.architectures import Architecture
from allcnn.networks.network import Network, Variables
from allcnn.networks.variables import input_statistics, normalised
from allcnn.training.recipe import Recipe


@dataclass(frozen=True)
class Powers(Architecture):
    """Its setting has the name of another architecture's, and another default."""

    name: ClassVar[str] = "powers"

    depth: int = setting(3, "highest power of a pixel", Bounds(1, 9), metavar="N")

    @property
    def label(self) -> str:
        """The name with the highest power."""
        return f"powers{self.depth}"

    def network(self, n_classes: int, input_channels: int, image_size: int) -> Network:
        """Return the network."""
        return _Network(self.depth, n_classes, input_channels, image_size)

    def recipe(self) -> Recipe:
        """Return RMSProp at a constant rate."""
        return _RmsProp()


@dataclass(frozen=True)
class _RmsProp(Recipe):
    def optimiser(self, config: Any, steps_per_epoch: int) -> Any:
        return optax.with_extra_args_support(optax.rmsprop(config.learning_rate))

    def learning_rate(self, config: Any, steps_per_epoch: int) -> Any:
        return optax.constant_schedule(config.learning_rate)

    def augment(self, key: Any, images: Any, fill: Any) -> Any:
        return images


@dataclass(frozen=True)
class _Network(Network):
    depth: int
    n_classes: int
    input_channels: int
    image_size: int

    @property
    def taps(self) -> tuple[str, ...]:
        return "powers", "logits"

    def init(self, key: Any, mean: Any, std: Any) -> Variables:
        n_inputs = self.depth * self.image_size**2 * self.input_channels
        kernel = 0.01 * jax.random.normal(key, (n_inputs, self.n_classes))
        return Variables({"kernel": kernel}, {}, input_statistics(mean, std))

    def apply(self, variables: Variables, images: Any) -> dict[str, Any]:
        params, _, inputs = variables
        x = normalised(images, inputs["mean"], inputs["std"]).reshape(len(images), -1)
        powers = [jnp.tanh(x)]
        for _ in range(1, self.depth):
            powers.append(powers[-1] * powers[0])
        taps = jnp.concatenate(powers, axis=1)
        return {"powers": taps, "logits": taps @ params["kernel"]}

    def apply_train(
        self, variables: Variables, images: Any, key: Any, precision: Any = "float32"
    ) -> tuple[Any, dict[str, Any]]:
        return self.apply(variables, images)["logits"], {}
