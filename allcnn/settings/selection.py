"""Representations by name."""

from dataclasses import dataclass
from typing import Any, Final, Self

from allcnn.definitions.fields import PLAIN, setting
from allcnn.errors import ConfigError
from store.model.names import fits

_GLOB: Final = r"[A-Za-z0-9_.*?\[\]!-]+"

NETWORK: Final = f"^{PLAIN}@{PLAIN}$"
"""One network, as a regular expression."""

NETWORKS: Final = f"^{_GLOB}@{_GLOB}$"
"""Networks by shell patterns."""

PATTERN: Final = f"^{_GLOB}@{_GLOB}(:.+)?$"
"""Representations by shell patterns; their taps have any name."""


@dataclass(frozen=True)
class Selection:
    """Representations by name: a run, a checkpoint and taps, each a name or a shell pattern.

    A tap's name is all that follows the first ``:`` behind the ``@``. It stands for itself whatever
    characters it has; as a pattern it may stand for others, too: in brackets, as in ``[[]``, a
    character is no part of one.
    """

    run: str
    checkpoint: str
    tap: str = "*"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``RUN@CHECKPOINT`` or ``RUN@CHECKPOINT:TAP``; raises ConfigError for other texts."""
        run, _, rest = text.partition("@")
        checkpoint, colon, tap = rest.partition(":")
        if not (run and checkpoint) or bool(colon) != bool(tap) or "@" in checkpoint:
            raise ConfigError(
                f"{text!r} names no network",
                remedy="write RUN@CHECKPOINT, as in a@final, or RUN@CHECKPOINT:TAP, as in"
                " 'a@*:conv[1-9]'",
            )
        return cls(run, checkpoint, tap or "*")

    @property
    def is_network(self) -> bool:
        """Whether this names one run and one checkpoint, without patterns."""
        return not set("*?[") & set(self.run + self.checkpoint)

    def matches(self, run: str, checkpoint: str, tap: str) -> bool:
        """Return whether a representation of these names is selected."""
        parts = ((run, self.run), (checkpoint, self.checkpoint), (tap, self.tap))
        return all(fits(name, pattern) for name, pattern in parts)

    def __str__(self) -> str:
        return f"{self.run}@{self.checkpoint}" + (f":{self.tap}" if self.tap != "*" else "")


EVERYTHING: Final = Selection("*", "*")


def selecting(
    help: str = "RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...], as in"
    " *@final:conv[1-9]; TAP is all that follows the colon, and may be a tap's name, whatever"
    " characters it has",
    pattern: str = PATTERN,
    **more: Any,
) -> Any:
    """Return a field of a dataclass that is a selection, or a list of them."""
    return setting(help=help, pattern=pattern, read=Selection.parse, metavar="PATTERN", **more)
