"""What a look through a store finds: which piece of it is not what was written."""

import re
from dataclasses import dataclass
from typing import Final

from store.layout import Kind

_SENTENCE: Final = re.compile(
    r".* are damaged \((.*)\)[:;] .*"
    r"|(.*?)[;:] (?:copy|delete|rename|give|use|write|compute|want) .*"
)

METADATA: Final = "metadata"
FOLDER: Final = "folder"


@dataclass(frozen=True)
class Damage:
    """One piece of a store that is not what was written.

    Attributes:
        kind: of the store.
        path: of the folder below the store's root; empty for the root itself.
        part: ``rows``, or ``minibatches`` of Grams; ``samples`` or ``labels``; ``metadata``; of a
            result the name of an array; ``folder`` for one that no store wrote.
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
        reason = self.reason.rstrip(".")
        if self.part == FOLDER:
            return f"{self.owner} is nothing that a store wrote ({reason})"
        some = self.part
        if self.start is not None and self.stop is not None:
            some += f" {self.start} to {self.stop - 1}"
        is_one = self.kind == "similarity" and self.part != METADATA
        return f"{some} of {self.owner} {'is' if is_one else 'are'} damaged ({reason})"

    @property
    def owner(self) -> str:
        """What it belongs to, in words."""
        parts = self.path.split("/")
        if not self.path:
            return f"the store of {self.kind}"
        if self.kind == "similarity":
            return f"result {self.path}"
        if len(parts) < 4:
            return f"the folder {self.path}"
        sample_set, run, checkpoint, tap = parts[:4]
        of = f"tap {tap} of run {run}, checkpoint {checkpoint}, on {sample_set}"
        return of if len(parts) == 4 else f"the Grams {parts[4]} of {of}"


@dataclass(frozen=True)
class Checked:
    """One folder of a store that was looked through.

    Attributes:
        kind: of the store.
        path: of the folder below the store's root.
        damage: all that was found in it.
        n_bytes: of values that were read.
        is_data: whether it holds a representation, its Grams or a result; else folders of these.
    """

    kind: Kind
    path: str
    damage: tuple[Damage, ...] = ()
    n_bytes: int = 0
    is_data: bool = False


def reason_of(error: object) -> str:
    """Return what was found, of an error's sentence that also says what to do.

    That differs where damage may be repaired.
    """
    found = _SENTENCE.fullmatch(str(error))
    return str(error) if found is None else found[1] or found[2]
