"""The report's folder, which lists the files written into it and removes no others."""

import hashlib
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Final

from allcnn.errors import WorkspaceError
from allcnn.workspace.paths import Workspace, read_json, write_json
from store.storage.paths import Place, is_file, make_folder, read_bytes, write_bytes
from store.storage.remote_errors import reaching

PAGE: Final = "index.html"
_FOLDERS: Final = ("assets", "data")
_LIST: Final = "written.json"
_OURS: Final = b"<title>Report on "
"""Stands in every page of ours, also in those of versions that listed nothing."""


class Folder:
    """Writes the page's files; ``publish`` then writes the page, and removes files left over.

    Raises WorkspaceError where a link leads out of the workspace, or another page is in the way.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._place = workspace.own("report")
        for name in _FOLDERS:
            make_folder(workspace.own("report", name))
        page = self._place / PAGE
        if is_file(page) and _OURS not in read_bytes(page):
            raise WorkspaceError(
                f"{page} is no report of ours, and would be replaced", remedy="move it away"
            )
        self._before = _read_list(self._place / _LIST)
        self._now: dict[str, str] = {}

    def write(self, name: str, content: bytes) -> None:
        """Write a file unless it holds that already: a nightly run changes little."""
        self._now[name] = _digest(content)
        if _content(self._place / name) != content:
            write_bytes(self._place / name, content)

    def publish(self, page: bytes) -> Place:
        """Write the page, last, so that its files are there when it is opened; return it.

        Files that an earlier report listed and this one did not write are removed.
        """
        write_bytes(self._place / PAGE, page)
        for name, digest in self._before.items():
            if name not in self._now:
                self._remove(name, digest)
        if self._now != self._before:
            write_json(self._place / _LIST, self._now)
        return self._place / PAGE

    def _remove(self, name: str, digest: str) -> None:
        # Whatever the list says: a file in one of our folders that is still as it was written.
        file, parts = self._place / name, PurePosixPath(name).parts
        ours = len(parts) == 2 and parts[0] in _FOLDERS and parts[1] != ".."
        if ours and not file.is_symlink() and _digest(_content(file) or b"") == digest:
            file.unlink(missing_ok=True)


def _read_list(file: Place) -> dict[str, str]:
    """Return what an earlier report listed; of a list that cannot be read, nothing is removed."""
    with suppress(WorkspaceError, FileNotFoundError):
        found = read_json(file)
        if isinstance(found, dict):
            return {name: digest for name, digest in found.items() if isinstance(digest, str)}
    return {}


def _content(file: Place) -> bytes | None:
    with reaching(file), suppress(FileNotFoundError, IsADirectoryError):
        return read_bytes(file)
    return None


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
