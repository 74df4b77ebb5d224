"""Handwritten digits that come with scikit-learn: a data set that needs no download."""

import importlib

import numpy as np
import tensorflow_datasets as tfds  # type: ignore[import-untyped]
from numpy.typing import NDArray

from allcnn.datasets.builder import Builder, LocalInfo, Rows, examples

_TEXT = (
    "1,797 handwritten digits of 8 x 8 grey pixels, as bundled with scikit-learn; the 17 levels"
    " are scaled to 0 to 255. Every third image is in the test split."
)
_CITATION = """\
@misc{alpaydin1998digits,
  author = {Alpaydin, E. and Kaynak, C.},
  title = {Optical Recognition of Handwritten Digits},
  howpublished = {UCI Machine Learning Repository},
  year = {1998}
}"""


class Digits(Builder):
    """1,198 training and 599 test images, uint8 of shape (8, 8, 1)."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> LocalInfo:
        return self.describe(
            _TEXT,
            "https://scikit-learn.org/stable/datasets/toy_dataset.html",
            _CITATION,
            image=tfds.features.Image(shape=(8, 8, 1)),
            label=tfds.features.ClassLabel(num_classes=10),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Rows]:
        # Imported here: it takes a second, and is needed once in the life of a data folder.
        bundled = importlib.import_module("sklearn.datasets").load_digits()
        levels = bundled.images.astype(np.int64)
        images = ((levels * 255 + 8) // 16).astype(np.uint8)  # halves round up
        is_test = np.arange(len(images)) % 3 == 2
        return {
            "train": self._generate_examples(images[~is_test], bundled.target[~is_test]),
            "test": self._generate_examples(images[is_test], bundled.target[is_test]),
        }

    def _generate_examples(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Rows:
        return examples(images, labels)
