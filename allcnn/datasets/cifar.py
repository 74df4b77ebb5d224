"""CIFAR-10 and CIFAR-100 from the binary archives of their authors."""

import gzip
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds  # type: ignore[import-untyped]
from numpy.typing import NDArray

from allcnn.datasets.builder import Builder, LocalInfo, Rows, check_labels, examples, unusable

_HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_CITATION = """\
@techreport{krizhevsky2009learning,
  author = {Krizhevsky, Alex},
  title = {Learning Multiple Layers of Features from Tiny Images},
  institution = {University of Toronto},
  year = {2009}
}"""
_SHAPE = (32, 32, 3)


class Cifar(Builder):
    """Base of CIFAR-10 and CIFAR-100.

    Attributes:
        folder: inside the archive.
        splits: the files of each split, in the order of their examples.
        label_files: for each byte before an image's pixels, the file that names its classes, and
            how many they are.
        about: what there is of images and classes.
    """

    VERSION = tfds.core.Version("3.0.2")
    folder: ClassVar[str]
    splits: ClassVar[dict[str, tuple[str, ...]]]
    label_files: ClassVar[dict[str, tuple[str, int]]]
    about: ClassVar[str]

    def _info(self) -> LocalInfo:
        counts = {key: n_classes for key, (_, n_classes) in self.label_files.items()}
        return self.describe(
            self.about,
            _HOMEPAGE,
            _CITATION,
            id=tfds.features.Text(),
            image=tfds.features.Image(shape=_SHAPE),
            **{key: tfds.features.ClassLabel(num_classes=n) for key, n in counts.items()},
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Rows]:
        archive = Path(dl_manager.download(self.archives[0]))
        files = [f"{self.folder}/{name}" for name, _ in self.label_files.values()]
        for key, text in zip(self.label_files, read_members(archive, files), strict=True):
            self.info.features[key].names = [name for name in text.decode().split("\n") if name]
        return {split: self._generate_examples(archive, split) for split in self.splits}

    def _generate_examples(self, archive: Path, split: str) -> Rows:
        members = [f"{self.folder}/{name}" for name in self.splits[split]]
        keys = tuple(self.label_files)
        labels, images = read_cifar(archive, members, len(keys))
        for key, column in zip(keys, labels.T, strict=True):
            check_labels(archive, column, self.info.features[key].num_classes)
        for index, example in examples(images, labels[:, -1]):
            example |= dict(zip(keys, labels[index].tolist(), strict=True))
            yield index, example | {"id": f"{split}_{index:05d}"}


class Cifar10(Cifar):
    """50,000 training and 10,000 test images of ten classes."""

    archives = ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)
    folder = "cifar-10-batches-bin"
    splits: ClassVar = {
        "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test": ("test_batch.bin",),
    }
    label_files: ClassVar = {"label": ("batches.meta.txt", 10)}
    about = "60,000 colour images of 32 x 32 pixels in 10 classes."


class Cifar100(Cifar):
    """50,000 training and 10,000 test images of a hundred classes in twenty groups."""

    archives = ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",)
    folder = "cifar-100-binary"
    splits: ClassVar = {"train": ("train.bin",), "test": ("test.bin",)}
    label_files: ClassVar = {
        "coarse_label": ("coarse_label_names.txt", 20),
        "label": ("fine_label_names.txt", 100),
    }
    about = "60,000 colour images of 32 x 32 pixels in 100 classes, which form 20 groups."


def read_cifar(
    archive: Path, members: Sequence[str], n_labels: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return labels (n, n_labels) and images (n, 32, 32, 3) of the members, one after another.

    Raises DatasetError if the archive is damaged, lacks a member, or has one of a wrong length.
    """
    n_bytes = n_labels + int(np.prod(_SHAPE))
    contents = read_members(archive, members)
    for member, content in zip(members, contents, strict=True):
        if not content or len(content) % n_bytes:
            found = f"has {len(content)} bytes, which is no multiple of the {n_bytes} of an example"
            raise unusable(f"{member} in {archive}", found)
    rows = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, n_bytes)
    planes = rows[:, n_labels:].reshape(-1, 3, 32, 32)
    return rows[:, :n_labels], planes.transpose(0, 2, 3, 1)


def read_members(archive: Path, members: Sequence[str]) -> list[bytes]:
    """Return the contents of the named files, read in one pass and never written to disk."""
    found: dict[str, bytes] = {}
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for entry in tar:
                    file = tar.extractfile(entry) if entry.name in members else None
                    if file is not None:
                        found[entry.name] = file.read()
            # To the end, where gzip's own checksum is.
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise unusable(archive, f"cannot be read as a tar.gz archive ({error})") from error
    for member in members:
        if member not in found:
            raise unusable(archive, f"has no member {member}")
    return [found[member] for member in members]
