"""Commands that messages advise, written so that they can be copied and run."""

import os
import shlex
from dataclasses import dataclass
from typing import Final

DEFAULT_ROOT: Final = "./workspace"
"""Where everything is kept unless another place is named."""


@dataclass(frozen=True)
class CommandLine:
    """A command of the shell; a message shows it between backticks."""

    words: tuple[str, ...]

    @property
    def line(self) -> str:
        """The command as it is typed."""
        return shlex.join(self.words)

    def __str__(self) -> str:
        return f"`{self.line}`"


def command(root: object, *words: object, **options: object) -> CommandLine:
    """Return a command of ``allcnn`` in a workspace, whose option is left out for the default one.

    Args:
        root: folder or address of the workspace; None for a command that has none.
        words: the command's name and its arguments.
        options: by their names; None leaves one out, True stands for a flag.
    """
    given = [f"{word}" for word in words]
    if root is not None and os.path.abspath(str(root)) != os.path.abspath(DEFAULT_ROOT):
        options = options | {"workspace": root}
    for name, value in options.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            given += [flag] if value is True else [flag, str(value)]
    return CommandLine(("allcnn", *given))
