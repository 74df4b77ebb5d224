"""Fashion-MNIST from the four IDX files of its authors."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds  # type: ignore[import-untyped]
from numpy.typing import NDArray

from allcnn.datasets.builder import Builder, LocalInfo, Rows, check_labels, examples, unusable

_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_CITATION = """\
@article{xiao2017fashion,
  author = {Xiao, Han and Rasul, Kashif and Vollgraf, Roland},
  title = {Fashion-{MNIST}: a Novel Image Dataset for Benchmarking Machine Learning Algorithms},
  journal = {arXiv:1708.07747},
  year = {2017}
}"""
_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FILES = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08


class FashionMnist(Builder):
    """60,000 training and 10,000 test images, uint8 of shape (28, 28, 1)."""

    VERSION = tfds.core.Version("3.0.1")
    archives = tuple(
        f"{_URL}/{prefix}-{kind}-ubyte.gz"
        for prefix in _FILES.values()
        for kind in ("images-idx3", "labels-idx1")
    )

    def _info(self) -> LocalInfo:
        return self.describe(
            "70,000 grey images of 28 x 28 pixels of clothes in 10 classes.",
            "https://github.com/zalandoresearch/fashion-mnist",
            _CITATION,
            image=tfds.features.Image(shape=(28, 28, 1)),
            label=tfds.features.ClassLabel(names=list(_NAMES)),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Rows]:
        paths = [Path(path) for path in dl_manager.download(list(self.archives))]
        pairs = zip(paths[0::2], paths[1::2], strict=True)
        return {
            split: self._generate_examples(*pair) for split, pair in zip(_FILES, pairs, strict=True)
        }

    def _generate_examples(self, image_file: Path, label_file: Path) -> Rows:
        images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
        if len(images) != len(labels):
            found = f"has {len(images)} images, but {label_file} has {len(labels)} labels"
            raise unusable(image_file, found)
        check_labels(label_file, labels, len(_NAMES))
        return examples(images, labels)


def read_idx(path: Path, n_dims: int) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes that a gzipped IDX file holds.

    Raises DatasetError if it is damaged, of another type, or has another number of dimensions.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise unusable(path, f"cannot be read as a gzip file ({error})") from error
    n_header = 4 + 4 * n_dims
    if content[:4] != bytes([0, 0, _UNSIGNED_BYTE, n_dims]) or len(content) < n_header:
        found = f"begins with {content[:4].hex()}, which is not the header of an IDX file of bytes"
        raise unusable(path, f"{found} in {n_dims} dimensions")
    shape = struct.unpack_from(f">{n_dims}I", content, 4)
    data = np.frombuffer(content, np.uint8, offset=n_header)
    if data.size != np.prod(shape, dtype=np.int64):
        raise unusable(path, f"holds {data.size} bytes for an array of shape {shape}")
    return data.reshape(shape)
