"""The list of what is in an exported run: its files, their sizes and digests, and one over all."""

import hashlib
import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from allcnn.definitions.fields import check_name
from allcnn.errors import ArchiveError, ConfigError
from allcnn.workspace.checkpoint_names import is_checkpoint
from store.model import strict_json

MANIFEST: Final = "manifest.json"
"""The first file of an export, which lists the others."""

_FORMAT: Final = "allcnn-run"
_VERSION: Final = 1

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Member(NamedTuple):
    """One file of a run: its path below the run's folder, and what it holds."""

    name: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Whose files an exported file holds, in their order."""

    run: str
    members: tuple[Member, ...]

    @property
    def digest(self) -> str:
        """The SHA-256 over the run's name and the list: it stands for everything in the file."""
        return f"sha256:{hashlib.sha256(_text(self._values()).encode()).hexdigest()}"

    @property
    def n_bytes(self) -> int:
        """How many bytes the members have together."""
        return sum(member.n_bytes for member in self.members)

    def encode(self) -> bytes:
        """Return the only text that says this."""
        return f"{_text(self._values() | {'sha256': self.digest})}\n".encode()

    @classmethod
    def decode(cls, file: Path, content: bytes) -> Self:
        """Read and check a manifest; raises ArchiveError for any text that ``encode`` never gives.

        A newer version is told apart from damage.
        """
        try:
            values = strict_json.parse(content)
            _check_version(file, values["format"], values["version"])
            members = tuple(Member(m["name"], m["bytes"], m["sha256"]) for m in values["members"])
            manifest = cls(check_name("run", values["run"]), members)
        except ArchiveError:
            raise
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            raise damaged(file, f"its {MANIFEST} cannot be read") from error
        _check_members(file, members)
        if manifest.encode() != content:
            raise damaged(file, f"its {MANIFEST} does not have its own SHA-256")
        return manifest

    def _values(self) -> dict[str, Any]:
        listed = [{"name": m.name, "bytes": m.n_bytes, "sha256": m.sha256} for m in self.members]
        return {"format": _FORMAT, "version": _VERSION, "run": self.run, "members": listed}


def is_member(name: str) -> bool:
    """Return whether a file of this path below a run's folder belongs to the run."""
    if name in ("config.json", "history.json"):
        return True
    top, *parts = name.split("/")
    within = top == "checkpoints" and 2 <= len(parts) <= 6 and len(name) <= tarfile.LENGTH_NAME
    return within and is_checkpoint(parts[0]) and all(map(_PART.fullmatch, parts))


def order_of(name: str) -> tuple[bool, str]:
    """Sort what says whether the rest can be used before the checkpoints."""
    return name.startswith("checkpoints/"), name


def cut_off(file: Path, what: str) -> ArchiveError:
    """Return the error for a file that lacks its end."""
    return ArchiveError(f"{file} was cut off ({what}); copy it again, whole")


def damaged(file: Path, what: str) -> ArchiveError:
    """Return the error for a file that is not as it was written."""
    return ArchiveError(f"{file} is damaged: {what}; copy or export it again")


def _check_version(file: Path, kind: object, version: Any) -> None:
    if kind == _FORMAT and version > _VERSION:
        raise ArchiveError(
            f"{file} has version {version} of the format, and this program reads {_VERSION};"
            " import it with the version that wrote it, or a later one"
        )


def _check_members(file: Path, members: Sequence[Member]) -> None:
    """Raise ArchiveError for names that are not a run's, not in their order, or in one another."""
    for name, n_bytes, sha256 in members:
        if not (isinstance(name, str) and is_member(name)):
            raise ArchiveError(
                f"{file} holds {_shown(name)}, which is no file of a run; get it from somebody whom"
                " you trust"
            )
        digest = isinstance(sha256, str) and _DIGEST.fullmatch(sha256)
        if type(n_bytes) is not int or n_bytes < 0 or not digest:
            raise damaged(file, f"its {MANIFEST} says no size or no SHA-256 of {name}")
    # Some file systems do not tell A from a.
    names = [member.name.casefold() for member in members]
    parents = {str(parent) for name in names for parent in Path(name).parents}
    if len(set(names)) < len(names) or parents & set(names):
        raise damaged(file, f"its {MANIFEST} names a file twice, or one as a folder")
    if "config.json" not in names:
        raise damaged(file, "it holds no config.json")
    if sorted(members, key=lambda member: order_of(member.name)) != list(members):
        raise damaged(file, f"its {MANIFEST} is not in order")


def _text(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1)


def _shown(name: object) -> str:
    return repr(name)[:120]
