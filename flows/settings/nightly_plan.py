"""Settings of nightly runs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self, get_args

from allcnn.definitions import bounds
from allcnn.definitions.fields import Setting, check_settings, only, setting, settings_of
from allcnn.errors import ConfigError
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import Extraction
from allcnn.settings.selection import EVERYTHING, NETWORKS, Selection, selecting
from allcnn.similarity.method import Method

Busy = Literal["step-aside", "wait"]

_STORED = Extraction("*", "*", keep=("grams",))
"""Grams alone: linear ones, which serve the RBF kernel as well."""


@dataclass(frozen=True)
class Nightly:
    """What to keep up to date.

    Attributes:
        extraction: how checkpoints are stored, whichever run and checkpoint it names.
        comparison: how matrices are computed, whatever its sides.
    """

    networks: Selection = selecting(
        "checkpoints that are stored: RUN@CHECKPOINT with *, ? and [...]; what is stored of others"
        " is renewed, too, where their checkpoint has become another one",
        NETWORKS,
        default=EVERYTHING,
    )
    extraction: Extraction = _STORED
    matrices: tuple[Selection, ...] = selecting(
        "all-pairs matrices that are kept up to date on each sample set, besides all results that"
        " are there: patterns as in *@final:conv[1-9]",
        default=(EVERYTHING,),
    )
    comparison: Comparison = Comparison(EVERYTHING, EVERYTHING, unusable="skip")  # noqa: RUF009
    share: float = setting(
        0.15,
        "of what is stored, verified in one nightly run; above 0 and at most 1",
        bounds.SHARE,
        metavar="SHARE",
    )
    repair: bool = setting(
        True, "compute again what is found damaged, where its checkpoint still exists"
    )
    busy: Busy = setting(
        "step-aside",
        "while another nightly run is at work: step-aside, or wait",
        choices=get_args(Busy),
    )

    def __post_init__(self) -> None:
        check_settings(self)
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
    def of(cls, methods: tuple[Method, ...], *, networks: Selection, **own: Any) -> Self:
        """Return a plan from single settings, as commands and flows have them; see ``SETTINGS``."""
        method = methods[0]
        extraction = Extraction(
            networks.run,
            networks.checkpoint,
            batch_size=method.batch_size,
            kernel=method.kernel.base,
            pool=method.pool,
            **{name: own.pop(name) for name in ("split", "n_samples", "dtype", "keep")},
        )
        comparison = Comparison(networks, networks, methods, unusable="skip")
        return cls(networks, extraction, comparison=comparison, **own)

    def extraction_of(self, run: str, checkpoint: str) -> Extraction:
        """Return how one checkpoint is stored."""
        return replace(self.extraction, run=run, checkpoint=checkpoint)

    def comparisons(self, sample_set: str) -> Iterator[Comparison]:
        """Yield the all-pairs matrices of one sample set."""
        for pattern in self.matrices:
            yield replace(self.comparison, rows=pattern, columns=pattern, sample_set=sample_set)


SETTINGS: Final[list[Setting]] = [
    *settings_of(Nightly).values(),
    *only(Extraction, "split", "n_samples", "dtype"),
    replace(*only(Extraction, "keep"), default=_STORED.keep),
]
"""Settings of a nightly run that commands and flows take, besides its methods."""
