"""Data sets in memory: uint8 images read once, and the fixed orders in which they are used."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

from allcnn.datasets.prepare import open_builder, resolve_data_dir
from allcnn.definitions.bounds import IMAGE_SIZE, SAMPLES
from allcnn.errors import ConfigError, DatasetError
from allcnn.machine_memory import check_room
from store.errors import pass_on

_CHUNK_ROWS = 1024
_MODES = {1: "L", 3: "RGB"}
_GLYPHS = frozenset({"digits", "emnist", "kmnist", "mnist", "svhn_cropped"})


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set, decoded; its arrays are read-only.

    Attributes:
        dataset: name of the data set.
        split: name of the split, such as ``train``.
        images: uint8 (n, h, w, c), with c = 1 for grey images.
        labels: int32 (n,), indices into the class names.
        class_names: in the order of the labels.
    """

    dataset: str
    split: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Outline:
    """Facts of a data set that are known before any image is read."""

    n_train: int
    n_test: int
    n_channels: int
    n_classes: int


def outline(dataset: str) -> Outline:
    """Return the sizes of a data set; raises as ``load`` does."""
    with open_builder(dataset, resolve_data_dir()) as builder:
        n_train, n_test = (_n_examples(builder, split) for split in ("train", "test"))
        n_channels = _check_features(builder)
        return Outline(n_train, n_test, n_channels, builder.info.features["label"].num_classes)


def load(dataset: str, split: str, image_size: int = 32) -> Split:
    """Read a split through TFDS, preparing the data set first where that is possible.

    Images of another size are resized with Pillow's bilinear filter, which averages when it
    shrinks; those that are not square lose their aspect ratio. Raises ConfigError for a size below
    12, and DatasetError for a data set that is unknown, unsuitable, damaged or cannot be fetched.
    """
    IMAGE_SIZE.check("image-size", image_size)
    with open_builder(dataset, resolve_data_dir()) as builder:
        n = _n_examples(builder, split)
        images, labels = _read(builder, split, n, image_size, _check_features(builder))
        names = tuple(builder.info.features["label"].names)
    images.flags.writeable = labels.flags.writeable = False
    return Split(dataset, split, images, labels, names)


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the permutation of n examples for an epoch, the same on every platform.

    Made by sorting raw random words: NumPy keeps a bit generator's stream between releases, but
    not how ``Generator.permutation`` uses it.
    """
    words = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch,))).random_raw(n)
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)


def batch_ranges(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Return the (start, stop) rows of consecutive batches; the last may be shorter."""
    return [(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]


def draw_samples(split: Split, n_samples: int) -> NDArray[np.int64]:
    """Return the indices of a sample set: the beginning of one fixed shuffle of the split.

    The shuffle depends on the split's length alone, so that a larger sample set begins with the
    smaller one and every run sees the same examples. Raises ConfigError for fewer than four
    samples or more than there are.
    """
    if not SAMPLES.least <= n_samples <= len(split):
        raise ConfigError(
            f"{n_samples} samples are wanted of {split.dataset}/{split.split}, which has"
            f" {len(split)} examples",
            remedy=f"use {SAMPLES.least} to {len(split)}",
        )
    # RandomState, whose streams NumPy has frozen.
    return np.random.RandomState(0).permutation(len(split))[:n_samples].astype(np.int64)


def digest(split: Split, indices: NDArray[np.int64]) -> str:
    """Return the SHA-256 of the examples' pixels and labels in this order, in hexadecimal."""
    state = hashlib.sha256(str((len(indices), *split.images.shape[1:])).encode())
    for start, stop in batch_ranges(len(indices), _CHUNK_ROWS):
        state.update(split.images[indices[start:stop]].tobytes())
    state.update(split.labels[indices].astype("<i4").tobytes())
    return state.hexdigest()


def supports_augmentation(dataset: str) -> bool:
    """Return whether flipping and cropping keep the labels: not those of written characters."""
    return dataset not in _GLYPHS


def image_statistics(split: Split) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return each channel's mean and standard deviation, of pixels scaled to [0, 1].

    Taken from counts of the 256 levels: exact in any order of the examples, and small.
    """
    n_channels = split.images.shape[-1]
    counts = np.zeros((n_channels, 256), np.int64)
    for start, stop in batch_ranges(len(split), _CHUNK_ROWS):
        channels = np.moveaxis(split.images[start:stop], -1, 0).reshape(n_channels, -1)
        counts += [np.bincount(channel, minlength=256) for channel in channels]
    weights = counts / np.sum(counts, axis=1, keepdims=True)
    levels = np.arange(256) / 255
    mean = weights @ levels
    variance = np.sum(weights * (levels - mean[:, None]) ** 2, axis=1)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def _n_examples(builder: tfds.core.DatasetBuilder, split: str) -> int:
    splits = builder.info.splits
    if split not in splits:
        remedy = f"use one of {', '.join(splits)}"
        raise DatasetError(f"data set {builder.name}", f"has no split {split!r}", remedy=remedy)
    return int(splits[split].num_examples)


def _check_features(builder: tfds.core.DatasetBuilder) -> int:
    """Return the number of channels if the data set can be classified from uint8 images."""
    features = builder.info.features
    found = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    if not all(isinstance(found.get(name), kind) for name, kind in wanted.items()):
        raise DatasetError(
            f"data set {builder.name} has the features {', '.join(sorted(found)) or features}",
            wanted="wanted are an Image named 'image' and a ClassLabel named 'label'",
        )
    n_channels, dtype = int(found["image"].shape[-1]), np.dtype(found["image"].np_dtype)
    if dtype != np.uint8 or n_channels not in _MODES:
        images = f"images of data set {builder.name}"
        wanted_form = "wanted is uint8 of 1 or 3"
        raise DatasetError(images, f"are {dtype} of {n_channels} channels", wanted_form)
    return n_channels


def _read(
    builder: tfds.core.DatasetBuilder, split: str, n: int, image_size: int, n_channels: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    name = f"split {split!r} of data set {builder.name}"
    n_bytes = n * image_size**2 * n_channels
    check_room(f"{name} at --image-size {image_size}", n_bytes, "use smaller images")
    images = np.empty((n, image_size, image_size, n_channels), np.uint8)
    labels = np.empty(n, np.int32)
    try:
        for row, example in enumerate(_examples(builder, split, n)):
            images[row] = _decode(example["image"], image_size, _MODES[n_channels])
            labels[row] = example["label"]
    # ArrayRecord, protobuf and Pillow each raise their own.
    except Exception as error:
        pass_on(error)
        found = f"cannot be read from {builder.data_dir} ({error})"
        remedy = "prepare it again, with file_format='array_record'"
        raise DatasetError(name, found, remedy=remedy) from error
    if labels.min() < 0:
        raise DatasetError(name, "has no labels")
    return images, labels


def _examples(builder: tfds.core.DatasetBuilder, split: str, n: int) -> Iterator[dict[str, Any]]:
    # TFDS decodes 3,000 images a second, Pillow alone 10,000; rows come fastest in chunks.
    undecoded = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split, decoders=undecoded)
    for start, stop in batch_ranges(n, _CHUNK_ROWS):
        yield from source.__getitems__(range(start, stop))


def _decode(encoded: bytes, image_size: int, mode: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(encoded)) as opened:
        image = opened.convert(mode)
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image_size, image_size, -1)
