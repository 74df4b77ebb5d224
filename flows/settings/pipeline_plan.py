"""The steps of a pipeline, worked out from its settings before any work begins."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import Any, Protocol

from allcnn.errors import ConfigError
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import DType, Extraction
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Method
from allcnn.workspace.checkpoint_names import checkpoint_name, spread_out


@dataclass(frozen=True)
class Pipeline:
    """Networks of several depths and seeds, all compared with each other on test examples."""

    runs: tuple[RunConfig, ...]
    n_samples: int | None = Extraction.n_samples
    dtype: DType = Extraction.dtype
    methods: tuple[Method, ...] = (Method(),)

    def __post_init__(self) -> None:
        names = [config.name for config in self.runs]
        if not names or len(set(names)) < len(names):
            listed = ", ".join(names) or "none"
            raise ConfigError("the networks", f"are {listed}", "name one or more, each once")
        # Refused here rather than after hours of training.
        next(self.between_runs(None))
        next(self.extractions())

    def extractions(self) -> Iterator[Extraction]:
        """Yield the extractions of the checkpoints of each run that ``stages`` returns."""
        how: dict[str, Any] = {"batch_size": self.methods[0].batch_size, "dtype": self.dtype}
        for config in self.runs:
            for checkpoint in stages(config):
                yield Extraction(config.name, checkpoint, n_samples=self.n_samples, **how)

    def between_runs(self, sample_set: str | None) -> Iterator[Comparison]:
        """Yield every final network against itself and every other, on what was extracted."""
        finals = [Selection(config.name, "final") for config in self.runs]
        for rows, columns in combinations_with_replacement(finals, 2):
            yield Comparison(rows, columns, self.methods, sample_set)

    def between_stages(self, config: RunConfig, sample_set: str) -> Iterator[Comparison]:
        """Yield a run's final network against its checkpoints, the first ones first."""
        final = Selection(config.name, "final")
        for checkpoint in stages(config):
            columns = Selection(config.name, checkpoint)
            yield Comparison(final, columns, self.methods, sample_set)


class _Steps(Protocol):
    """The steps of a pipeline, with Prefect or without it; ``extract`` returns the sample set."""

    def train(self, config: RunConfig) -> None: ...
    def extract(self, job: Extraction) -> str: ...
    def compare(self, job: Comparison) -> None: ...
    def compare_stages(self, run: str, jobs: list[Comparison]) -> None: ...
    def draw_curves(self, runs: list[str], name: str) -> None: ...


def work_through(plan: Pipeline, steps: _Steps) -> None:
    """Take the steps of a pipeline one after the other: each uses the whole device."""
    for config in plan.runs:
        steps.train(config)
    sample_set = [steps.extract(job) for job in plan.extractions()][-1]
    for job in plan.between_runs(sample_set):
        steps.compare(job)
    for config in plan.runs:
        steps.compare_stages(config.name, list(plan.between_stages(config, sample_set)))
    runs = [config.name for config in plan.runs]
    steps.draw_curves(runs, f"{plan.runs[0].prefix}-curves")


def stages(config: RunConfig) -> list[str]:
    """Return the checkpoints of a run that are extracted and compared with its last one."""
    between = range(config.checkpoint_every, config.epochs, config.checkpoint_every)
    return spread_out(["init", *map(checkpoint_name, between), "final"])


def each_of(settings: Mapping[str, Any], **several: Sequence[Any]) -> tuple[RunConfig, ...]:
    """Return a run for each combination of the values of some settings.

    Those that the architecture does not have are left out.
    """
    known = RunConfig.of(**settings).to_json()
    there = {name: values for name, values in several.items() if name in known}
    return tuple(
        RunConfig.of(**dict(settings) | dict(zip(there, values, strict=True)))
        for values in product(*there.values())
    )


_SMALL = RunConfig.of(
    dataset="digits",
    image_size=16,
    width=0.25,
    epochs=12,
    checkpoint_every=2,
    batch_size=64,
    prefix="demo",
)

DEMO = Pipeline((_SMALL, _SMALL.but(seed=1), _SMALL.but(depth=2)))
"""Three small networks on images that need no download."""
