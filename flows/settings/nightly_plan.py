"""What a night is asked to do: settings without a word about how it is run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from allcnn.definitions import bounds
from allcnn.errors import ConfigError
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import DType, Extraction, Keep
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Method

Busy = Literal["step-aside", "wait"]

EVERYTHING = Selection("*", "*")

_STORED = Extraction("*", "*", keep=("grams",))
"""Grams alone: linear ones, which serve the RBF kernel as well."""


@dataclass(frozen=True)
class Nightly:
    """What to keep up to date.

    Attributes:
        networks: the checkpoints that are stored, by patterns of runs and checkpoints.
        extraction: how, whichever run and checkpoint it names.
        matrices: patterns of the all-pairs matrices that are kept up to date on each sample set,
            besides all results that are there.
        comparison: how these are computed, whatever its sides.
        share: of what is stored, that is verified this night; the rest has its turn later.
        repair: compute again what is found damaged.
        busy: what to do while another nightly run is at work on the workspace.
    """

    networks: Selection = EVERYTHING
    extraction: Extraction = _STORED
    matrices: tuple[Selection, ...] = (EVERYTHING,)
    comparison: Comparison = Comparison(EVERYTHING, EVERYTHING, unusable="skip")  # noqa: RUF009
    share: float = 0.15
    repair: bool = True
    busy: Busy = "step-aside"

    def __post_init__(self) -> None:
        bounds.SHARE.check("share", self.share)
        if self.networks.tap != "*":
            raise ConfigError(
                f"networks is {str(self.networks)!r}, and all taps are stored together",
                remedy=f"leave out ':{self.networks.tap}'",
            )
        if self.comparison.method.is_whole and "activations" not in self.extraction.keep:
            how = self.comparison.method.measure.how
            raise ConfigError(f"{how} needs activations", remedy="keep activations as well")
        if self.comparison.method.batch_size != self.extraction.batch_size:
            raise ConfigError(
                f"Grams are kept in minibatches of {self.extraction.batch_size}, and compared in"
                f" minibatches of {self.comparison.method.batch_size}",
                remedy="ask for the same",
            )

    @classmethod
    def of(
        cls,
        networks: Selection,
        matrices: Sequence[Selection],
        methods: tuple[Method, ...],
        *,
        split: str,
        n_samples: int | None,
        dtype: DType,
        keep: Sequence[Keep],
        share: float,
        repair: bool,
        busy: Busy,
    ) -> Self:
        """Return a plan from single settings, as commands and flows have them."""
        method = methods[0]
        extraction = Extraction(
            networks.run,
            networks.checkpoint,
            split=split,
            n_samples=n_samples,
            batch_size=method.batch_size,
            dtype=dtype,
            keep=tuple(keep),
            kernel=method.kernel.base,
            pool=method.pool,
        )
        comparison = Comparison(networks, networks, methods, unusable="skip")
        return cls(networks, extraction, tuple(matrices), comparison, share, repair, busy)

    def extraction_of(self, run: str, checkpoint: str) -> Extraction:
        """Return how one checkpoint is stored."""
        return replace(self.extraction, run=run, checkpoint=checkpoint)

    def comparisons(self, sample_set: str) -> Iterator[Comparison]:
        """Yield the all-pairs matrices of one sample set."""
        for pattern in self.matrices:
            yield replace(self.comparison, rows=pattern, columns=pattern, sample_set=sample_set)
