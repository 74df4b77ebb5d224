"""One file for one run: a TAR of which every byte is prescribed, so that any other is noticed.

The first member lists the others with their sizes and SHA-256, and has a SHA-256 over that list;
headers, padding and the end follow from it. A file is what ``pack`` writes, byte for byte, or it is
refused: links, devices and names that lead outside cannot even be said. Nothing is compressed, so
nothing becomes larger than the file; ``tar`` unpacks it too, without these checks.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from allcnn.errors import ArchiveError, WorkspaceError
from allcnn.workspace.run_manifest import (
    MANIFEST,
    Manifest,
    Member,
    cut_off,
    damaged,
    is_member,
    order_of,
)
from store.storage.atomic_write import replacing

_END: Final = bytes(2 * tarfile.BLOCKSIZE)

_MOST_MANIFEST_BYTES: Final = 2**24
"""About 100,000 members: it is read whole, before anything in it is known to be right."""

_BLOCK_BYTES: Final = 2**20


def pack(file: Path, run: str, folder: Path, names: Sequence[str]) -> Manifest:
    """Write files of a run's folder into one: all of it, or nothing under that name.

    The same files give the same bytes. Raises WorkspaceError where one is a link, or is changed
    meanwhile, and where the file cannot be written.
    """
    manifest = Manifest(run, tuple(_measured(folder, name) for name in sorted(names, key=order_of)))
    content = manifest.encode()
    with _replacing(file) as stream:
        stream.write(_header(MANIFEST, len(content)) + content + _padding(len(content)))
        for member in manifest.members:
            stream.write(_header(member.name, member.n_bytes))
            with (folder / member.name).open("rb") as source:
                if _copied(source, stream, member.n_bytes) != member.sha256 or source.read(1):
                    raise WorkspaceError(
                        f"{folder / member.name} was changed while it was exported; export it"
                        " again once nobody writes to the run"
                    )
            stream.write(_padding(member.n_bytes))
        stream.write(_END)
    return manifest


def unpack(file: Path, runs: Path) -> Manifest:
    """Write the files of an exported run below a folder of runs, where there is none of its name.

    Raises ArchiveError at the first byte that is not as it must be, and before any is written where
    names or sizes are not.
    """
    if not file.is_file():
        raise ArchiveError(f"{file} is no file; name the file of an exported run")
    with file.open("rb") as stream:
        manifest = _read_manifest(file, stream)
        for member in manifest.members:
            what = f"the header of {member.name}"
            _expect(file, stream, _header(member.name, member.n_bytes), what)
            _extract(file, stream, member, runs / manifest.run / member.name)
            _expect(file, stream, _padding(member.n_bytes), f"the padding of {member.name}")
        _expect(file, stream, _END, "its end")
        if stream.read(1):
            raise damaged(file, "something follows its end")
    return manifest


def _read_manifest(file: Path, stream: BinaryIO) -> Manifest:
    header = stream.read(tarfile.BLOCKSIZE)
    name, size = header[: len(MANIFEST) + 1], header[124:135]
    if name != f"{MANIFEST}\0".encode() or not re.fullmatch(rb"[0-7]{11}", size):
        raise ArchiveError(f"{file} is no file of an exported run; name another one")
    n_bytes = int(size, 8)
    if header != _header(MANIFEST, n_bytes) or n_bytes > _MOST_MANIFEST_BYTES:
        raise damaged(file, f"the header of {MANIFEST} is not as written")
    content = stream.read(n_bytes)
    if len(content) < n_bytes:
        raise cut_off(file, "it ends within its list of files")
    manifest = Manifest.decode(file, content)
    _expect(file, stream, _padding(n_bytes), f"the padding of {MANIFEST}")
    wanted = stream.tell() + len(_END)
    wanted += sum(_size_in_file(member.n_bytes) for member in manifest.members)
    found = os.fstat(stream.fileno()).st_size
    # Before a byte is written: no more is ever unpacked than there is.
    if found < wanted:
        raise cut_off(file, f"it has {found} bytes of {wanted}")
    if found > wanted:
        raise damaged(file, f"it has {found} bytes and should have {wanted}")
    return manifest


def _extract(file: Path, stream: BinaryIO, member: Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as written:
        if _copied(stream, written, member.n_bytes) != member.sha256:
            raise damaged(file, f"{member.name} does not have its SHA-256")
        _flush(written)


def _copied(source: BinaryIO, target: BinaryIO, n_bytes: int) -> str:
    """Copy so many bytes, or as many as there are; return their SHA-256."""
    hasher = hashlib.sha256()
    while n_bytes and (block := source.read(min(n_bytes, _BLOCK_BYTES))):
        hasher.update(block)
        target.write(block)
        n_bytes -= len(block)
    return hasher.hexdigest()


def _measured(folder: Path, name: str) -> Member:
    path = folder / name
    if not is_member(name) or path.is_symlink():
        raise WorkspaceError(
            f"{path} is no ordinary file of a run; remove it from the run's folder"
        )
    with path.open("rb") as source:
        n_bytes = os.fstat(source.fileno()).st_size
        return Member(name, n_bytes, hashlib.file_digest(source, "sha256").hexdigest())


def _expect(file: Path, stream: BinaryIO, wanted: bytes, what: str) -> None:
    if stream.read(len(wanted)) != wanted:
        raise damaged(file, f"{what} is not as written")


@contextmanager
def _replacing(file: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes the place of a path at the end, and is on the disk then."""
    try:
        with replacing(file) as stream:
            yield stream
            _flush(stream)
    except OSError as error:
        if isinstance(error, WorkspaceError):
            raise
        raise WorkspaceError(
            f"{file} cannot be written ({error.strerror or error}); mend that, or name another"
            " file, and export again"
        ) from error


def _flush(stream: BinaryIO) -> None:
    # Else a power cut could leave an empty file of the right name.
    stream.flush()
    os.fsync(stream.fileno())


def _header(name: str, n_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = n_bytes
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(n_bytes: int) -> bytes:
    return bytes(-n_bytes % tarfile.BLOCKSIZE)


def _size_in_file(n_bytes: int) -> int:
    return tarfile.BLOCKSIZE + n_bytes + len(_padding(n_bytes))
