"""Which examples the rows are of, the same for all that is stored on one sample set."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import ConflictError, MisalignedWriteError, StoreError
from store.model.array_interop import as_integers
from store.model.examples import NO_INDEX
from store.model.names import is_tap_folder, tap_folder
from store.model.schema import Meta, RepresentationKey, RepresentationMeta
from store.storage.paths import Place, child_names
from store.zarrfiles.layout import COORDINATES, META, crc32c
from store.zarrfiles.metadata_files import read_attributes

_MOST_LOOKS = 30
"""Looks for activations whose indices are known: at an address each is a request or two."""

Coordinates = Mapping[str, npt.NDArray[Any]]


def coordinates_of(samples: npt.ArrayLike, labels: npt.ArrayLike, meta: Meta) -> Coordinates:
    """Return the coordinates as they are stored; raises MisalignedWriteError for others."""
    n, refuse = meta.n_samples, MisalignedWriteError
    return {
        "sample": as_integers(f"samples of {meta.key}", samples, np.int64, n, refuse),
        "label": as_integers(f"labels of {meta.key}", labels, np.int32, n, refuse),
    }


def digests(coordinates: Coordinates) -> dict[str, str]:
    """Return what is recorded of them."""
    return {name: crc32c(values) for name, values in coordinates.items()}


def check_like_others(root: Place, meta: RepresentationMeta, wanted: Mapping[str, str]) -> None:
    """Raise ConflictError where other activations of the sample set are stored with others.

    Rows of one sample set stand for the same examples, and xarray puts them together by these. One
    representation is enough to look at, as it was compared with those before it; but for those
    whose indices are not known, which are like any others.
    """
    unknown = crc32c(np.full(meta.n_samples, NO_INDEX, np.int64))
    if wanted["sample"] == unknown:
        return
    for folder in islice(_others(root, meta.key), _MOST_LOOKS):
        attributes: Mapping[str, Any] = {}
        with suppress(StoreError):  # damage, which verification reports
            attributes = read_attributes(folder) or {}
        other, found = attributes.get(META), recorded(attributes, wanted)
        if not isinstance(other, dict) or found is None or found["sample"] == unknown:
            continue
        sample_set = other.get("sample_set")
        if sample_set != meta.sample_set.to_json():
            raise ConflictError(
                f"{meta.key} is of the sample set {meta.sample_set}, and {folder} of {sample_set}",
                remedy="begin their digests differently, so that they have different names",
            )
        for name, digest in wanted.items():
            if found[name] != digest:
                raise ConflictError(
                    f"{meta.key} has other {name}s (digest {digest}) than {folder} on the same"
                    f" sample set ({found[name]})",
                    remedy="give those that are stored, as store.Examples.like gives them, or"
                    " examples of another digest",
                )
        return


def recorded(attributes: Mapping[str, Any], wanted: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the digests of a group's coordinates, None where it has not those that are wanted."""
    found = attributes.get(COORDINATES)
    return found if isinstance(found, dict) and set(found) == set(wanted) else None


def _others(root: Place, key: RepresentationKey) -> Iterator[Place]:
    """Yield the other taps of a network, then one of each other network, one after the other."""
    sample_set = root / key.sample_set
    own = sample_set / key.run / key.checkpoint
    others = (name for name in child_names(own, is_tap_folder) if name != tap_folder(key.tap))
    yield from (own / name for name in others)
    for run in child_names(sample_set):
        for checkpoint in child_names(sample_set / run):
            network = sample_set / run / checkpoint
            if network != own:
                yield from (network / name for name in child_names(network, is_tap_folder)[:1])
