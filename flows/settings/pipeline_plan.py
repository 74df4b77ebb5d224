"""What a pipeline does, in order, worked out from its settings before any work begins."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement

from allcnn.config import (
    Comparison,
    DType,
    Estimator,
    Extraction,
    Kernel,
    Pool,
    RunConfig,
    Selection,
)
from allcnn.errors import ConfigError
from allcnn.workspace.checkpoint_names import checkpoint_name, spread_out

MAX_NUMBERS = 10_000
"""Depths or seeds of one pipeline: a mistyped range must not fill the memory."""

_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


@dataclass(frozen=True)
class Pipeline:
    """Networks of several depths and seeds, all compared with each other.

    Attributes:
        training: settings of every run but for depth and seed.
        networks: depth and seed of each run.
        n_samples: examples of the test split that are compared; None for 2,048 or all.
        minibatch: examples a minibatch of the comparison.
        kernel: linear or RBF.
        sigmas: bandwidths of the RBF kernel as fractions of the median distance.
        estimator: of HSIC.
        dtype: of the stored activations.
        pool: ``mean`` averages convolutional taps over space before they are compared.
    """

    training: RunConfig = field(default_factory=RunConfig)
    networks: tuple[tuple[int, int], ...] = ((1, 0), (1, 1), (2, 0), (2, 1))
    n_samples: int | None = Extraction.n_samples
    minibatch: int = Extraction.batch_size
    kernel: Kernel = Comparison.kernel
    sigmas: tuple[float, ...] = Comparison.sigmas
    estimator: Estimator = Comparison.estimator
    dtype: DType = Extraction.dtype
    pool: Pool = Comparison.pool

    def __post_init__(self) -> None:
        if not self.networks or len(set(self.networks)) < len(self.networks):
            raise ConfigError(
                f"the networks (depth, seed) are {list(self.networks)}; name each once"
            )
        # Refused here rather than after hours of training.
        for config in self.configs():
            self.comparison(Selection(config.name, "final"), Selection(config.name, "final"), None)
            self.extraction(config, "final")

    def configs(self) -> list[RunConfig]:
        """Return the settings of all runs."""
        return [replace(self.training, depth=depth, seed=seed) for depth, seed in self.networks]

    def extraction(self, config: RunConfig, checkpoint: str) -> Extraction:
        """Return how one checkpoint is extracted."""
        return Extraction(
            config.name,
            checkpoint,
            n_samples=self.n_samples,
            batch_size=self.minibatch,
            dtype=self.dtype,
        )

    def comparison(self, rows: Selection, columns: Selection, sample_set: str | None) -> Comparison:
        """Return how two networks are compared."""
        return Comparison(
            rows,
            columns,
            kernel=self.kernel,
            sigmas=self.sigmas,
            estimator=self.estimator,
            batch_size=self.minibatch,
            sample_set=sample_set,
            pool=self.pool,
        )

    def extractions(self) -> Iterator[Extraction]:
        """Yield what is extracted: of each run the checkpoints of ``stages``."""
        for config in self.configs():
            for checkpoint in stages(config):
                yield self.extraction(config, checkpoint)

    def between_runs(self, sample_set: str) -> Iterator[Comparison]:
        """Yield every final network against itself and every other, on what was extracted."""
        finals = [Selection(config.name, "final") for config in self.configs()]
        for rows, columns in combinations_with_replacement(finals, 2):
            yield self.comparison(rows, columns, sample_set)

    def between_stages(self, config: RunConfig, sample_set: str) -> Iterator[Comparison]:
        """Yield a run's final network against its checkpoints, the first ones first."""
        final = Selection(config.name, "final")
        for checkpoint in stages(config):
            yield self.comparison(final, Selection(config.name, checkpoint), sample_set)


def stages(config: RunConfig) -> list[str]:
    """Return the checkpoints of a run that are extracted and compared with its last one."""
    between = range(config.checkpoint_every, config.epochs, config.checkpoint_every)
    return spread_out(["init", *map(checkpoint_name, between), "final"])


def parse_numbers(name: str, text: str) -> tuple[int, ...]:
    """Read a list of numbers and ascending ranges, such as ``0-3,7``; raises ConfigError."""
    numbers: list[int] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise ConfigError(f"{name} is {text!r}; write numbers and ranges, as in 0-3,7")
        if len(numbers) + last - first >= MAX_NUMBERS:
            raise ConfigError(f"{name} is {text!r}; name at most {MAX_NUMBERS} numbers")
        numbers += range(first, last + 1)
    return tuple(dict.fromkeys(numbers))


def parse_fractions(name: str, text: str) -> tuple[float, ...]:
    """Read a list of numbers such as ``0.2,0.4,0.8``; raises ConfigError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{name} is {text!r}; write numbers, as in 0.2,0.4,0.8") from None


_DEMO_RUN = RunConfig(
    dataset="digits",
    image_size=16,
    width=0.25,
    epochs=12,
    checkpoint_every=2,
    batch_size=64,
    prefix="demo",
)

DEMO = Pipeline(_DEMO_RUN, networks=((1, 0), (1, 1), (2, 0)))
"""Three small networks on images that need no download."""
