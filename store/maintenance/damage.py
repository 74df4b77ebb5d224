"""The damage that verification finds in a store."""

from dataclasses import dataclass
from typing import Final, Self

from store.errors import ExplainedError
from store.model.names import shown
from store.zarrfiles.layout import NAMED, Kind

METADATA: Final = "metadata"
FOLDER: Final = "folder"
MISSING: Final = "missing"


@dataclass(frozen=True)
class Damage:
    """One piece of a store that is not what was written.

    Attributes:
        kind: of the store.
        path: of the folder below the store's root; empty for the root itself.
        part: ``rows``, or ``minibatches`` of Grams; ``samples`` or ``labels``; ``metadata``; of a
            result or a probe the name of an array; ``folder`` for one that no store wrote;
            ``missing`` for a tap without a folder, or for a network that lacks taps.
        reason: what was found.
        start: the first damaged row or minibatch; None where the part is damaged as a whole.
        stop: the first one after them.
    """

    kind: Kind
    path: str
    part: str
    reason: str
    start: int | None = None
    stop: int | None = None

    def __str__(self) -> str:
        reason, of = self.reason.rstrip("."), owner(self.kind, self.path)
        if self.part == MISSING:
            is_tap = len(self.path.split("/")) > 3
            return f"{of} is missing ({reason})" if is_tap else f"{of} lacks taps ({reason})"
        if self.part == FOLDER:
            return f"{of} was not written by a store ({reason})"
        some = self.part
        if self.start is not None and self.stop is not None:
            some += f" {self.start} to {self.stop - 1}"
        is_one = self.kind in NAMED and self.part != METADATA
        return f"{some} of {of} {'is' if is_one else 'are'} damaged ({reason})"


@dataclass(frozen=True)
class Unfinished:
    """A group that is being written, or whose writer was killed or lost a folder: no damage.

    Or a network that lacks taps; ``reason`` is how far it is.
    """

    kind: Kind
    path: str
    reason: str

    def __str__(self) -> str:
        sample_set, *network = self.path.split("/")
        if len(network) == 2:
            return f"run {network[0]}, checkpoint {network[1]}, on {sample_set}: {self.reason}"
        return f"{owner(self.kind, self.path)}: {self.reason}"


@dataclass(frozen=True)
class Checked:
    """One folder of a store that was verified: what was found in it, and how much was read.

    ``is_data`` of a representation, its Grams, a result or a probe, but not of a folder of these;
    ``n_missing_taps`` are those of its network, as far as it knows.
    """

    kind: Kind
    path: str
    damage: tuple[Damage, ...] = ()
    n_bytes: int = 0
    is_data: bool = False
    unfinished: tuple[Unfinished, ...] = ()
    n_missing_taps: int = 0

    @classmethod
    def damaged(
        cls, kind: Kind, path: str, part: str, reason: str, *, is_data: bool = False
    ) -> Self:
        """Return a folder of which one part is damaged as a whole."""
        return cls(kind, path, (Damage(kind, path, part, reason),), is_data=is_data)


def owner(kind: Kind, path: str) -> str:
    """Return in words what a folder of a store holds."""
    parts = path.split("/")
    if not path:
        return f"the store of {kind}"
    if kind in NAMED:
        return f"{'probe' if kind == 'probes' else 'result'} {path}"
    if len(parts) < 4:
        return f"the folder {path}"
    sample_set, run, checkpoint, tap = parts[:4]
    of = f"tap {shown(tap)} of run {run}, checkpoint {checkpoint}, on {sample_set}"
    return of if len(parts) == 4 else f"the Grams {parts[4]} of {of}"


def reason_of(error: Exception) -> str:
    """Return what was found, without the remedy, which differs where damage can be repaired."""
    return error.reason if isinstance(error, ExplainedError) else str(error)
