"""Base of the builders: no registration, no bucket, archives identified by checksums."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image
from tensorflow_datasets.core.download import resource  # type: ignore[import-untyped]

from allcnn.errors import DatasetError

_log = logging.getLogger(__name__)

Rows = Iterator[tuple[int, dict[str, Any]]]
"""Examples and their keys."""


class LocalInfo(tfds.core.DatasetInfo):  # type: ignore[misc]
    """A description that is not looked up in TFDS's bucket."""

    def initialize_from_bucket(self) -> None:
        """Do nothing: TFDS would leave an empty temporary folder behind at each call."""


class Builder(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
    """Base of builders that share a name with an official one, so none of them is registered.

    Attributes:
        archives: URLs of what is downloaded; their sizes and digests are in ``checksums.tsv``.
    """

    name: ClassVar[str]
    archives: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Keep TFDS's registry as it is: an official name may be taken only once."""
        super().__init_subclass__(skip_registration=True, **kwargs)

    def describe(
        self, text: str, homepage: str, citation: str, **features: tfds.features.FeatureConnector
    ) -> LocalInfo:
        """Describe a classification data set with these features."""
        return LocalInfo(
            builder=self,
            description=text,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=homepage,
            citation=citation,
        )

    def has_archive(self, url: str, download_dir: Path) -> bool:
        """Return whether an archive is in ``manual/``, or downloaded already."""
        info = self.url_infos[url]
        cached = resource.get_dl_fname(url, info.checksum)
        downloaded = (download_dir / self.name / cached, download_dir / cached)
        manual = download_dir / "manual" / info.filename
        return manual.is_file() or any(map(resource.is_locally_cached, downloaded))

    def _log_download_bytes(self) -> None:
        # TFDS would print this; commands print their results alone.
        _log.info("preparing %s in %s", self.name, self.data_dir)

    def _log_download_done(self) -> None:
        _log.info("prepared %s", self.name)


def examples(images: NDArray[np.uint8], labels: Iterable[int]) -> Rows:
    """Yield keyed examples; the images as Pillow's, which TFDS encodes without TensorFlow."""
    for index, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        yield index, {"image": Image.fromarray(pixels), "label": int(label)}


def check_labels(source: Path, labels: NDArray[np.uint8], n_classes: int) -> None:
    """Raise DatasetError if a label of this file stands for no class."""
    largest = labels.max(initial=0)
    if largest >= n_classes:
        raise unusable(source, f"has a label {largest}, where {n_classes} classes are named")


def unusable(source: Path | str, found: str) -> DatasetError:
    """Return the error for a downloaded file whose content is not what its authors published."""
    return DatasetError(str(source), found, remedy="remove it and fetch it again")
