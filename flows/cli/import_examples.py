"""Which examples imported rows are of, as far as what is stored tells."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import store
from allcnn.advice import listing, store_missing
from allcnn.errors import RunError
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from store.model.examples import NO_INDEX
from store.storage.paths import child_names


def stored_like(place: Workspace, like: Selection, n: int, sample_set: str | None) -> Any:
    """Return something stored of a network over ``n`` examples, activations or Grams."""
    where = {"run": like.run, "checkpoint": like.checkpoint, "sample_set": sample_set}
    found: list[Any] = [one for kept in _stores(place) for one in kept.find(**where)]
    sets = {each.meta.sample_set.name: each for each in found}
    fitting = [each for each in sets.values() if each.meta.n_samples == n]
    if len(fitting) == 1:
        return fitting[0]
    on = f" on {sample_set}" if sample_set else ""
    if not found:
        raise RunError(
            f"{place.root} holds no activations or Grams of {like}{on}",
            remedy=listing(place) if sample_set else store_missing(place, like),
        )
    names = ", ".join(sorted(sets))
    if fitting:
        raise RunError(f"{like} is stored on {names}", remedy="choose one with --sample-set")
    raise RunError(
        f"{like} is stored on {names}, and the arrays have {n} rows", remedy="give as many rows"
    )


def numbered_as_stored(
    place: Workspace, examples: store.Examples, run: str, checkpoint: str
) -> store.Examples:
    """Return examples with the indices that they have in what is stored, found by their digest.

    First in what is stored of the network itself, which goes on with those, known or not.
    """
    name = examples.sample_set.name
    for own in ({"run": run, "checkpoint": checkpoint}, {}):
        for kept in _stores(place):
            for one in kept.scan(sample_set=name, **own).found:
                indices = _indices(one) if one.meta.sample_set == examples.sample_set else None
                if indices is not None and (own or NO_INDEX not in indices):
                    return replace(examples, indices=indices)
    return examples


def _indices(one: Any) -> Any:
    """Return the indices of something stored, None where they are damaged: others may tell."""
    try:
        return one.samples
    except store.StoreError:
        return None


def incomparable(place: Workspace, sample_set: str) -> list[str]:
    """Return a note on each stored sample set that differs from this one in its digest alone."""
    alike = sample_set.rpartition("-")[0]
    names = {*child_names(place.activations), *child_names(place.grams)} - {sample_set}
    return [
        f"note: {name} is stored too, and activations on it and on {sample_set} cannot be compared:"
        " their examples have different digests"
        for name in sorted(names)
        if name.rpartition("-")[0] == alike
    ]


def _stores(place: Workspace) -> Iterator[store.Store | store.GramStore]:
    if store.has_store(place.activations):
        yield store.open(place.activations)
    if store.has_store(place.grams):
        yield store.open_grams(place.grams)
