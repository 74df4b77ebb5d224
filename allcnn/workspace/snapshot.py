"""What exists in a workspace, asked once for a whole command."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Self, TypeVar

from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from store.errors import ExplainedError

T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot(Workspace):
    """A workspace that lists, opens and hashes nothing twice, as whatever takes one asks it.

    It does not see what is written later; its own command calls ``forget`` for what it stores.
    """

    _answers: dict[tuple[Hashable, ...], object] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, workspace: Workspace) -> Self:
        """Return a snapshot of a workspace: the same one, where it is a snapshot already."""
        return workspace if isinstance(workspace, cls) else cls(workspace.root)

    def once(self, question: tuple[Hashable, ...], answer: Callable[[], T]) -> T:
        """Return the first answer to a question, or raise its error again."""
        if question not in self._answers:
            try:
                self._answers[question] = answer()
            except ExplainedError as error:
                self._answers[question] = error
        found = self._answers[question]
        if isinstance(found, ExplainedError):
            raise found
        return found  # type: ignore[return-value]  # as this question was answered

    def forget(self, networks: Iterable[Selection]) -> None:
        """List and open again what is stored of networks, after this process has written some."""
        written = set(networks)
        for question in list(self._answers):
            if question[0] == "stored" or (question[0] == "opened" and question[1] in written):
                del self._answers[question]

    def __reduce__(self) -> tuple[type["Snapshot"], tuple[object]]:
        return Snapshot, (self.root,)
