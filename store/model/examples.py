"""The examples to which the rows of a network's activations belong."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError
from store.model.array_interop import as_bytes, as_integers, as_numpy, check_numeric
from store.model.field_checks import check_count
from store.model.schema import SampleSet

NO_LABEL = -1
"""Class of an example whose class is not known."""

NO_INDEX = -1
"""Index of an example whose place in its data set is not known."""

_CHUNK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of a sample set, in its order; ``allcnn.extract.load_samples`` returns them too.

    Attributes:
        sample_set: name, number and digest of the examples.
        indices: int64 (n,), index of every row's example in its data set; -1 where not known.
        labels: int32 (n,), class of every row's example; -1 where it is not known.
    """

    sample_set: SampleSet
    indices: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]

    @staticmethod
    def of(
        dataset: str,
        split: str,
        n_samples: int | np.integer[Any],
        *,
        indices: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        images: Any = None,
    ) -> "Examples":
        """Describe examples, by their images if these are given, in the order of the rows.

        Networks compare only where data set, split, number and digest agree. The digest is of
        ``images`` and labels; of the networks of this package those are uint8 (n, h, w, c). Without
        images it is of indices and labels, and the caller vouches that the same ones stand for the
        same examples; ``indices`` are 0, 1, 2, ... then, unless given. With images, indices that
        are not given are unknown.
        """
        n = n_samples.item() if isinstance(n_samples, np.integer) else n_samples
        check_count("n_samples", n)
        if images is not None and not hasattr(images, "shape"):
            images = as_numpy(images, "the array of images")
        if indices is None:
            indices = np.arange(n) if images is None else np.full(n, NO_INDEX)
        order = as_integers("indices", indices, np.int64, n)
        labels = np.full(n, NO_LABEL) if labels is None else labels
        classes = as_integers("labels", labels, np.int32, n)
        # Without images no shape is known, and metadata need one.
        shape, digest = (1,), ""
        if images is None:
            state = hashlib.sha256(f"{n} indices and labels".encode())
            state.update(as_bytes(order.astype("<i8")))
            state.update(as_bytes(classes.astype("<i4")))
            digest = state.hexdigest()
        elif len(images) != n:
            raise ArrayError("there are", f"{len(images)} images for {n} rows", "want one a row")
        else:
            shape, digest = tuple(images.shape[1:]), _digest_of_images(images, classes)
        return Examples(SampleSet(dataset, split, n, shape, digest), order, classes)

    @staticmethod
    def like(
        stored: Any,
        *,
        indices: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        images: Any = None,
    ) -> "Examples":
        """Return the examples of a stored ``Representation`` or ``Grams``, so that the two compare.

        Indices, labels and images that are given are compared with them, which shows whether the
        rows are in another order.
        """
        known = Examples(stored.meta.sample_set, stored.samples, stored.labels)
        for name, given in (("indices", indices), ("labels", labels)):
            if given is not None:
                known._check_same(name, given)
        if images is not None:
            found = _digest_of_images(images, known.labels)
            if found != known.sample_set.digest:
                raise ArrayError(
                    "the images",
                    f"have the digest {found[:8]}, and {known.sample_set.name} is stored",
                    "give uint8 images (n, h, w, c) of the same examples in the same order",
                )
        return known

    def _check_same(self, name: str, values: npt.ArrayLike) -> None:
        known: npt.NDArray[Any] = getattr(self, name)
        given = as_integers(name, values, np.int64, len(known))
        odd = np.flatnonzero(given != known)
        if len(odd):
            row, own = odd[0], self.sample_set.name
            raise ArrayError(
                f"row {row}",
                f"has {given[row]} among the {name}, and {known[row]} in what is stored of {own}",
                remedy="give the same examples in the same order",
            )


def _digest_of_images(images: Any, labels: npt.NDArray[np.int32]) -> str:
    """Return the SHA-256 of images and labels in their order, in hexadecimal.

    For uint8 images (n, h, w, c) it is the digest by which this package's own networks are stored.
    """
    first = as_numpy(images[:1])
    check_numeric("the array of images", first.dtype)
    kind = "" if first.dtype == np.uint8 else f" {first.dtype}"
    state = hashlib.sha256(f"{(len(labels), *first.shape[1:])}{kind}".encode())
    for start in range(0, len(labels), _CHUNK_ROWS):
        state.update(as_bytes(as_numpy(images[start : start + _CHUNK_ROWS])))
    state.update(as_bytes(labels.astype("<i4")))
    return state.hexdigest()
