"""Find a prepared data set, or prepare it, without waiting for a network that is not there."""

import errno
import os
import ssl
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import tensorflow_datasets as tfds  # type: ignore[import-untyped]
from tensorflow_datasets.core import read_only_builder  # type: ignore[import-untyped]
from tensorflow_datasets.core.download import download_manager  # type: ignore[import-untyped]

from allcnn.datasets import BUILDERS, Builder
from allcnn.errors import DatasetError

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def resolve_data_dir() -> Path:
    """Return the folder of prepared data sets: TFDS_DATA_DIR, or TFDS's default.

    The variable is read at each call; TFDS itself reads it only when it is imported.
    """
    chosen = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(os.path.expanduser(chosen)).absolute()


class ReadOnlyFolderError(DatasetError):
    """The data folder cannot be written."""


@contextmanager
def open_builder(dataset: str, data_dir: Path) -> Iterator[tfds.core.DatasetBuilder]:
    """Yield a builder of the prepared data set, which is prepared first if need be.

    A set that needs no download is prepared in a temporary folder where ``data_dir`` cannot be
    written, and is gone at exit. Raises DatasetError.
    """
    builder_cls = BUILDERS.get(dataset)
    if builder_cls is None:
        yield _find(dataset, data_dir)
        return
    with ExitStack() as stack:
        try:
            folder = ensure_prepared(builder_cls, data_dir)
        except ReadOnlyFolderError:
            if builder_cls.archives:
                raise
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="allcnn-"))
            folder = ensure_prepared(builder_cls, Path(scratch))
        try:
            opened = tfds.builder_from_directory(folder)
        # TFDS, protobuf and JSON each raise their own for a file that is cut short.
        except Exception as error:
            found = f"holds no readable {dataset} ({error})"
            raise DatasetError(str(folder), found, remedy="remove it and try again") from error
        yield opened


def ensure_prepared(builder_cls: type[Builder], data_dir: Path) -> Path:
    """Return the folder of the data set's own version, preparing it if it is not there.

    Two processes may do this at once: TFDS writes to a folder of its own and renames it, and
    who comes second uses what the first has put there.
    """
    folder = data_dir / builder_cls.name / str(builder_cls.VERSION)
    name = builder_cls.name
    if not folder.exists():
        try:
            _prepare(builder_cls, data_dir)
        except OSError as error:
            # Else another process has prepared it, so that the last renaming failed here.
            if not _is_prepared(folder):
                kind = ReadOnlyFolderError if error.errno in _READ_ONLY else DatasetError
                raise kind(
                    f"{name} cannot be prepared in {data_dir} ({error}); set TFDS_DATA_DIR to a"
                    f" folder that can be written, or to one where {name} is prepared"
                ) from error
    if not _is_prepared(folder):
        raise DatasetError(f"{folder} holds no prepared data set", remedy="remove it and try again")
    return folder


def is_reachable(url: str, timeout_s: float = 3.0) -> bool:
    """Return whether the server of the URL answers within the time."""
    answers: list[bool] = []
    # A daemon, because resolving a name can block for longer than any timeout that it is given.
    probe = threading.Thread(target=lambda: answers.append(_ask(url, timeout_s)), daemon=True)
    probe.start()
    probe.join(timeout_s)
    return any(answers)


def _ask(url: str, timeout_s: float) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code in (405, 501)  # a server that answers, though not to HEAD
    except urllib.error.URLError as error:
        # The download brings certificates of its own; it may succeed where the system has none.
        return isinstance(error.reason, ssl.SSLCertVerificationError)
    except OSError:
        return False


def _find(dataset: str, data_dir: Path) -> tfds.core.DatasetBuilder:
    try:
        return read_only_builder.builder_from_files(dataset, data_dir=os.fspath(data_dir))
    except (ValueError, OSError) as error:
        raise DatasetError(
            f"data set {dataset!r} is not prepared in {data_dir}, and is none of those prepared"
            f" here ({', '.join(BUILDERS)})",
            remedy="prepare it with TFDS, file_format='array_record', and set TFDS_DATA_DIR to its"
            " data_dir",
        ) from error


def _is_prepared(folder: Path) -> bool:
    # As TFDS's is_prepared(), which logs a warning where the answer is no.
    return all(os.path.isfile(folder / name) for name in ("dataset_info.json", "features.json"))


def _prepare(builder_cls: type[Builder], data_dir: Path) -> None:
    builder = builder_cls(data_dir=data_dir, file_format="array_record")
    downloads = data_dir / "downloads"
    _check_reachable(builder, downloads)
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(
        manual_dir=downloads / "manual", try_download_gcs=False, force_checksums_validation=True
    )
    try:
        builder.download_and_prepare(download_dir=downloads, download_config=config)
    except download_manager.NonMatchingChecksumError as error:
        found = str(error).splitlines()[0].rstrip(":")
        remedy = "remove that file and fetch it again"
        raise DatasetError(f"{builder.name}: {found}", remedy=remedy) from error
    except tfds.download.DownloadError as error:
        raise DatasetError(f"{builder.name} cannot be downloaded: {error}") from error


def _check_reachable(builder: Builder, downloads: Path) -> None:
    # Without a network, TFDS retries for minutes and cannot be interrupted.
    missing = [url for url in builder.archives if not builder.has_archive(url, downloads)]
    if missing and not is_reachable(missing[0]):
        host = urllib.parse.urlsplit(missing[0]).hostname
        raise DatasetError(
            f"{builder.name} is not prepared in {builder.data_dir_root}, and {host} cannot be"
            " reached to download it",
            remedy=f"put {', '.join(missing)} into {downloads / 'manual'}, or set TFDS_DATA_DIR to"
            f" a folder where {builder.name} is prepared",
        )
