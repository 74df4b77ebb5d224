"""One file for one run: an ordinary tar, whose first file lists the others with their SHA-256.

Digests show damage, not who made a file. Nothing is compressed, so nothing becomes larger than it.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from allcnn.definitions.fields import check_name
from allcnn.errors import ArchiveError, WorkspaceError
from allcnn.workspace.checkpoint_names import is_checkpoint
from store.model import strict_json
from store.storage.local_files import replacing
from store.storage.paths import walk_files

_LIST: Final = "manifest.json"
_MOST_LIST_BYTES: Final = 2**24
"""About 100,000 files: the list is read whole, before anything in it is known to be right."""

_FORMAT: Final = "allcnn-run"
_VERSION: Final = 2
"""Version 1 has the same list; its readers refuse a tar that differs in any byte from theirs."""

_PART: Final = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
_MEMBER = re.compile(rf"(?:config|history)\.json|checkpoints/({_PART})(?:/{_PART}){{1,5}}")


class Manifest(NamedTuple):
    """The contents of a file; the digest, over the run's name and the list, identifies them."""

    run: str
    n_files: int
    digest: str


def is_member(name: str, checkpoints: Sequence[str] = ()) -> bool:
    """Return whether a path below a run's folder is a file of the run, or of some checkpoints."""
    found = _MEMBER.fullmatch(name)
    if found is None or len(name) > tarfile.LENGTH_NAME:
        return False
    of = found[1]
    return of is None or (of in checkpoints if checkpoints else is_checkpoint(of))


def pack(file: Path, run: str, folder: Path, checkpoints: Sequence[str]) -> Manifest:
    """Write a run's folder, with some checkpoints, into a file: all of it, or nothing of that name.

    The same files give the same bytes. Raises WorkspaceError where one is a link, or is changed
    meanwhile, and where the file cannot be written.
    """
    names = sorted(name for name, _, _ in walk_files(folder) if is_member(name, checkpoints))
    members = [_measured(folder, name) for name in names]
    listed = {"format": _FORMAT, "version": _VERSION, "run": run, "members": members}
    manifest = Manifest(run, len(members), _digest(listed))
    try:
        with replacing(file) as stream:
            _write(stream, folder, listed | {"sha256": manifest.digest})
    except WorkspaceError:
        raise
    except OSError as error:
        remedy = "fix that, or name another file, and export again"
        found = f"cannot be written ({error.strerror or error})"
        raise WorkspaceError(str(file), found, remedy=remedy) from error
    return manifest


def unpack(file: Path, runs: Path) -> Manifest:
    """Write the files of an exported run below an empty folder of runs.

    Only plain files that are listed are extracted, by names that cannot lead elsewhere. Raises
    ArchiveError for anything else, and for damage.
    """
    if not file.is_file():
        raise ArchiveError(f"{file} is no file", remedy="name the file of an exported run")
    try:
        with tarfile.open(file, "r:") as tar:
            # The first patches of Python 3.11 have no filters.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            listed = _read_list(file, tar, runs)
            run, members = check_name("run", listed["run"]), listed["members"]
            _extract(file, tar, {each["name"]: each for each in members}, runs / run)
            return Manifest(run, len(members), listed["sha256"])
    except (ArchiveError, OSError):
        raise
    # Headers and lists that no program writes give errors of many kinds.
    except Exception as error:
        found = f"cannot be read as an exported run ({type(error).__name__}: {error})"
        remedy = "copy it again, or name another file"
        raise ArchiveError(str(file), found, remedy=remedy) from error


def _write(stream: BinaryIO, folder: Path, listed: dict[str, Any]) -> None:
    with tarfile.open(fileobj=stream, mode="w") as tar:
        _add(tar, _LIST, _text(listed))
        for member in listed["members"]:
            path = folder / member["name"]
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != member["sha256"]:
                remedy = "export it again once no process writes to the run"
                raise WorkspaceError(str(path), "was changed while it was exported", remedy=remedy)
            _add(tar, member["name"], content)
    # Else a power cut could leave an empty file of the right name.
    stream.flush()
    os.fsync(stream.fileno())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # without times and owners
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _read_list(file: Path, tar: tarfile.TarFile, runs: Path) -> dict[str, Any]:
    info = tar.next()
    if not info or info.name != _LIST or not _is_plain(info) or info.size > _MOST_LIST_BYTES:
        raise ArchiveError(f"{file} is no file of an exported run", remedy="name another one")
    tar.extract(info, runs, set_attrs=False)
    listed: dict[str, Any] = strict_json.parse((runs / _LIST).read_bytes())
    if listed["format"] != _FORMAT or listed["version"] > _VERSION:
        found = f"{listed['format']} {listed['version']}"[:40]
        found = f"has the format {found!r}, and this program reads {f'{_FORMAT} {_VERSION}'!r}"
        remedy = "import it with the version that wrote it, or a later one"
        raise ArchiveError(str(file), found, remedy=remedy)
    if listed["sha256"] != _digest({k: v for k, v in listed.items() if k != "sha256"}):
        raise _damaged(file, f"its {_LIST} does not have its own SHA-256")
    return listed


def _extract(
    file: Path, tar: tarfile.TarFile, missing: dict[str, dict[str, Any]], folder: Path
) -> None:
    while info := tar.next():
        member = missing.pop(info.name, None)
        is_fine = member and is_member(info.name) and _is_plain(info)
        # On some disks A is the same file as a.
        if not is_fine or (folder / info.name).exists():
            found = f"holds {info.name[:100]!r}, which is no plain file of a run, or not listed"
            raise ArchiveError(str(file), found, remedy="get it from a source that you trust")
        tar.extract(info, folder, set_attrs=False)
        with (folder / info.name).open("rb") as written:
            os.fsync(written.fileno())
        if _measured(folder, info.name) != member:
            raise _damaged(file, f"{info.name} does not have its SHA-256")
    if missing:
        raise _damaged(file, f"{min(missing)} is missing")


def _is_plain(info: tarfile.TarInfo) -> bool:
    # A sparse file could become larger than all of the archive.
    return info.isreg() and not info.issparse()


def _measured(folder: Path, name: str) -> dict[str, Any]:
    """Return the entry of a file in the list."""
    path = folder / name
    if path.is_symlink() or not path.is_file():
        remedy = "remove it from the run's folder"
        raise WorkspaceError(f"{path} is no ordinary file of a run", remedy=remedy)
    with path.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        return {"name": name, "bytes": source.tell(), "sha256": digest}


def _digest(listed: dict[str, Any]) -> str:
    return f"sha256:{hashlib.sha256(_text(listed)).hexdigest()}"


def _text(listed: dict[str, Any]) -> bytes:
    return json.dumps(listed, indent=1).encode()


def _damaged(file: Path, what: str) -> ArchiveError:
    return ArchiveError(f"{file} is damaged: {what}", remedy="copy or export it again")
