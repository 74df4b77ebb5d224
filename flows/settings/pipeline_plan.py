"""What a pipeline does, in order, worked out from its settings before any work begins."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement

from allcnn.errors import ConfigError
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import DType, Extraction
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Method
from allcnn.workspace.checkpoint_names import checkpoint_name, spread_out


@dataclass(frozen=True)
class Pipeline:
    """Networks of several depths and seeds, all compared with each other.

    Attributes:
        training: settings of every run but for depth and seed.
        networks: depth and seed of each run.
        n_samples: examples of the test split that are compared; None for 2,048 or all.
        dtype: of the stored activations.
        methods: how networks are compared.
    """

    training: RunConfig = field(default_factory=RunConfig)
    networks: tuple[tuple[int, int], ...] = ((1, 0), (1, 1), (2, 0), (2, 1))
    n_samples: int | None = Extraction.n_samples
    dtype: DType = Extraction.dtype
    methods: tuple[Method, ...] = (Method(),)

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
            batch_size=self.methods[0].batch_size,
            dtype=self.dtype,
        )

    def comparison(self, rows: Selection, columns: Selection, sample_set: str | None) -> Comparison:
        """Return how two networks are compared."""
        return Comparison(rows, columns, self.methods, sample_set=sample_set)

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
