"""The blocks of code in README.md, and what a comment right above one says of running it."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

_BLOCK = re.compile(
    r"(?:^<!-- (?P<how>not run|run as): (?P<what>.+?) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"`(allcnn [^`]+)`")
_SETTINGS = re.compile(
    r"(?:run|flow) (\w+)(?:/\w+)? (?:--watch )?(?:--param settings=|--settings )"
)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        line: of README.md, where it begins.
        language: sh or python; empty for what is no code.
        text: what stands in it.
        instead: the commands that are run in its place; empty where itself is run.
        why_not: why it is not run; empty where it is.
    """

    line: int
    language: str
    text: str
    instead: str
    why_not: str

    @property
    def code(self) -> str:
        """What is run."""
        return self.instead or self.text


def blocks() -> list[Block]:
    """Return the blocks of README.md in order."""
    text = README.read_text(encoding="utf-8")
    return [
        Block(
            text.count("\n", 0, found.start()) + 1,
            found["language"],
            found["text"],
            found["what"] if found["how"] == "run as" else "",
            found["what"] if found["how"] == "not run" else "",
        )
        for found in _BLOCK.finditer(text)
    ]


def commands() -> list[list[str]]:
    """Return the words of each ``allcnn`` command in the blocks, whether they are run or not."""
    lines = (line for each in blocks() if each.language == "sh" for line in each.text.splitlines())
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("allcnn ")]


def inline_commands() -> list[list[str]]:
    """Return the words of each ``allcnn`` command within a sentence, here and in ``docs``.

    Some are left unfinished, as an example of others.
    """
    texts = [file.read_text(encoding="utf-8") for file in (README, *(ROOT / "docs").glob("*.md"))]
    return [shlex.split(each)[1:] for text in texts for each in _INLINE.findall(text)]


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the flows that are run, and their settings."""
    for each in blocks():
        for line in each.text.splitlines():
            if found := _SETTINGS.search(line):
                (text,) = re.findall(r"'(\{.*\})'", line)
                yield found[1], json.loads(text)
