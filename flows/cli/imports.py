"""Take the activations of other people's networks from files into a workspace."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import click
import numpy as np
import numpy.typing as npt

import store
from allcnn.advice import listing, store_missing
from allcnn.definitions.bounds import MINIBATCH
from allcnn.errors import ConfigError, RunError
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from flows.cli.import_command import Import
from flows.views.progress import Progress
from flows.views.stored import open_stores
from store.ingest.files.arrays import ArrayFile
from store.ingest.files.folders import open_array, open_arrays
from store.ingest.files.roles import Roles, as_classes, as_indices, assign
from store.model.examples import NO_INDEX
from store.model.names import fits
from store.storage.paths import child_names


def import_files(place: Workspace, job: Import) -> tuple[str, list[str]]:
    """Store what the files hold as the taps of a network; return the sample set and the taps.

    A note on standard error reports whatever is left out, converted or taken for something. Goes on
    where it was; nothing that is there already is written again. Raises RunError for the name of a
    run that is trained here, whose own activations it would stand for.
    """
    if job.run in place.runs():
        raise RunError(
            f"{job.run} is a run of {place.root}, and what is stored under its name is extracted"
            " from it",
            remedy="import under another --run",
        )
    title = f"importing {job.run}@{job.checkpoint}"
    with open_arrays(job.files, job.stack) as found:
        given = [role for role in ("labels", "samples") if getattr(job, role) is not None]
        roles = assign(found.arrays, job.taps, job.skip, given)
        for note in (*found.notes, *roles.notes):
            _note(note)
        first = _channels_first(job, roles.taps)
        examples = _examples(place, job, roles)
        with Progress([1]) as progress, progress.step(title) as report:
            store.write_network(
                place.activations,
                roles.taps,
                run=job.run,
                checkpoint=job.checkpoint,
                examples=examples,
                report=report,
                dtype=job.dtype,
                batch_rows=job.minibatch,
                channels_first=first,
                attributes=job.attributes,
                digest=job.digest,
                compression=job.compression,
            )
    sample_set = examples.sample_set.name
    for note in _incomparable(place, sample_set) if job.like is None else []:
        _note(note)
    return sample_set, list(roles.taps)


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def parse_attributes(texts: tuple[str, ...]) -> dict[str, str | int | float | bool]:
    """Read ``NAME=VALUE``s: true, false, numbers, or else texts; raises ConfigError for others."""
    found: dict[str, str | int | float | bool] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not (name.isidentifier() and value) or name in found:
            wanted = "write NAME=VALUE, each once, as in depth=3"
            raise ConfigError("attribute", f"is {text!r}", wanted)
        found[name] = _parsed(value)
    return found


def _parsed(value: str) -> str | int | float | bool:
    if value in ("true", "false"):
        return value == "true"
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            pass
    return value


def _channels_first(job: Import, taps: Mapping[str, ArrayFile]) -> list[str]:
    """Return the taps that have their channels second, and note how shapes are read."""
    for pattern in job.channels_last:
        if not any(fits(name, pattern) for name in taps):
            raise ConfigError(f"channels-last is {pattern!r}, and fits none of {', '.join(taps)}")
    first = []
    for name, array in taps.items():
        shape = array.shape
        if not job.channels_first:
            if len(shape) == 4 and shape[2] == shape[3] != shape[1]:
                _note(
                    f"{name} {shape} is read as (n, h, w, c), of {shape[-1]} channels;"
                    " --channels-first reads (n, c, h, w)"
                )
        elif len(shape) in (3, 4) and not any(fits(name, p) for p in job.channels_last):
            first.append(name)
            if len(shape) == 3:
                _note(
                    f"{name} {shape} is read as (n, c, position), of {shape[1]} channels; with"
                    f" --channels-last {name} as (n, position, c)"
                )
    return first


def _examples(place: Workspace, job: Import, roles: Roles) -> store.Examples:
    # Arrays that have no rows are refused by name later on.
    n = max((array.shape[0] for array in roles.taps.values() if array.shape), default=0)
    if n < MINIBATCH.least:
        remedy = f"HSIC needs {MINIBATCH.least} or more"
        raise RunError(f"the arrays have {n} rows, one an example", remedy=remedy)
    given = {
        "labels": roles.labels if job.labels is None else _labels(job.labels),
        "indices": roles.samples if job.samples is None else _samples(job.samples),
        "images": None if job.images is None else _images(job.images, job.channels_first),
    }
    if job.like is not None:
        return store.Examples.like(_stored_like(place, job.like, n, job.sample_set), **given)
    examples = store.Examples.of(str(job.dataset), str(job.split), n, **given)
    if given["indices"] is not None:
        return examples
    return _numbered_as_stored(place, examples, job.run, job.checkpoint)


def _labels(text: str) -> npt.NDArray[Any]:
    with open_array(text) as found:
        classes, meaning = as_classes(found.source, found.read_all())
    if meaning:
        _note(f"the labels of {found.source} are taken as {meaning}")
    return classes


def _samples(text: str) -> npt.NDArray[Any]:
    with open_array(text) as found:
        return as_indices(found.source, found.read_all())


def _images(text: str, channels_first: bool) -> npt.NDArray[Any]:
    with open_array(text) as found:
        if found.dtype != np.uint8 or len(found.shape) != 4:
            axes = "(n, c, h, w)" if channels_first else "(n, h, w, c)"
            raise RunError(
                f"the images in {found.source} are {found.dtype} of shape {found.shape}",
                remedy=f"want uint8 {axes}",
            )
        images = found.read_all()
    return np.moveaxis(images, 1, -1) if channels_first else images


def _stored_like(place: Workspace, like: Selection, n: int, sample_set: str | None) -> Any:
    """Return something stored of a network over ``n`` examples, activations or Grams."""
    where = {"run": like.run, "checkpoint": like.checkpoint, "sample_set": sample_set}
    found: list[Any] = [one for kept in open_stores(place) for one in kept.find(**where)]
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


def _numbered_as_stored(
    place: Workspace, examples: store.Examples, run: str, checkpoint: str
) -> store.Examples:
    """Return examples with the indices that they have in what is stored, found by their digest.

    What is stored of the network itself comes first, which continues with those, known or not.
    """
    name = examples.sample_set.name
    for own in ({"run": run, "checkpoint": checkpoint}, {}):
        for kept in open_stores(place):
            for one in kept.scan(sample_set=name, **own).found:
                # Others may have the indices that are damaged in one.
                with suppress(store.StoreError):
                    if one.meta.sample_set == examples.sample_set and (
                        own or NO_INDEX not in one.samples
                    ):
                        return replace(examples, indices=one.samples)
    return examples


def _incomparable(place: Workspace, sample_set: str) -> list[str]:
    """Return a note on each stored sample set that differs from this one in its digest alone."""
    alike = sample_set.rpartition("-")[0]
    names = {*child_names(place.activations), *child_names(place.grams)} - {sample_set}
    return [
        f"{name} is stored too, and activations on it and on {sample_set} cannot be compared:"
        " their examples have different digests"
        for name in sorted(names)
        if name.rpartition("-")[0] == alike
    ]
