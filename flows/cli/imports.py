"""Take somebody else's activations from files into a workspace."""

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import store
from allcnn.definitions.bounds import MINIBATCH
from allcnn.definitions.fields import check_name
from allcnn.errors import ConfigError, RunError
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from flows.cli.import_examples import numbered_as_stored, stored_like
from flows.views.progress import Progress
from store.ingest.files.arrays import ArrayFile
from store.ingest.files.classes import as_classes, as_indices
from store.ingest.files.folders import open_array, open_arrays
from store.ingest.files.roles import Roles, assign
from store.model.names import fits

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Import:
    """What to take in, and whose activations over which examples it is.

    Attributes:
        files: files of arrays, or folders of them.
        run: name of the network.
        checkpoint: name of its state.
        taps: which arrays are its taps, as NAME or NEW=NAME; none for all that can be.
        skip: patterns of arrays that are left out.
        stack: whether each file of a folder is an example; None where the files tell.
        dataset: the data set that the examples are of; None with ``like``.
        split: its part; None with ``like``.
        labels: FILE or FILE:NAME of the classes; with ``like``, as the next two, to be checked.
        samples: FILE or FILE:NAME of the indices in the data set.
        images: FILE or FILE:NAME of the images.
        like: a stored network over the same examples, in the same order.
        sample_set: which of its sample sets, where several have as many rows.
        dtype: as stored; ``float64`` where float32 would lose how examples differ.
        minibatch: rows of a minibatch of the store.
        channels_first: whether arrays of three and four axes have their channels second.
        channels_last: patterns of taps of which this is not so.
        attributes: facts about the network.
        digest: what stands for its parameters; None for a digest of the rows.
        compression: of the chunks.
    """

    files: tuple[Path, ...]
    run: str
    checkpoint: str = "final"
    taps: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    stack: bool | None = None
    dataset: str | None = None
    split: str | None = None
    labels: str | None = None
    samples: str | None = None
    images: str | None = None
    like: Selection | None = None
    sample_set: str | None = None
    dtype: store.DType = "float32"
    minibatch: int = 256
    channels_first: bool = False
    channels_last: tuple[str, ...] = ()
    attributes: store.Attributes | None = None
    digest: str | None = None
    compression: store.Compression = "none"

    def __post_init__(self) -> None:
        check_name("run", self.run)
        check_name("checkpoint", self.checkpoint)
        MINIBATCH.check("minibatch", self.minibatch)
        if self.digest is not None and not re.fullmatch(r"[!-~]{1,200}", self.digest):
            raise ConfigError(
                f"digest is {self.digest!r}",
                remedy="use 1 to 200 letters, digits and signs, no spaces",
            )
        if self.like is None:
            self._check_described()
        else:
            self._check_like(self.like)
        if self.channels_last and not self.channels_first:
            raise ConfigError(
                "channels-last excepts layers from --channels-first", remedy="give both"
            )

    def _check_described(self) -> None:
        for name, value in (("dataset", self.dataset), ("split", self.split)):
            if value is None:
                raise ConfigError(
                    f"{name} is not given",
                    remedy=(
                        "say of which examples the rows are, with --dataset and"
                        " --split, or with --like RUN@CHECKPOINT"
                    ),
                )
            check_name(name, value)
        if self.sample_set is not None:
            raise ConfigError("sample-set chooses among those of --like", remedy="leave it out")

    def _check_like(self, like: Selection) -> None:
        for name, value in (("dataset", self.dataset), ("split", self.split)):
            if value is not None:
                raise ConfigError(f"{name} and like exclude each other", remedy="leave one out")
        if not like.is_network or like.tap != "*":
            raise ConfigError(f"like is {str(like)!r}", remedy="name one network, as in a@final")


def import_files(place: Workspace, job: Import, tell: Tell) -> tuple[str, list[str]]:
    """Store what the files hold as the taps of a network; return the sample set and the taps.

    ``tell`` gets a line on whatever is left out, converted or taken for something. Goes on where it
    was; what is there already is not written again. Raises RunError for the name of a run that is
    trained here, whose own activations it would stand for.
    """
    if job.run in place.runs():
        raise RunError(
            f"{job.run} is a run of {place.root}, and what is stored under its name is extracted"
            " from it",
            remedy="import under another --run",
        )
    with ExitStack() as opened:
        found = opened.enter_context(open_arrays(job.files, job.stack))
        given = [role for role in ("labels", "samples") if getattr(job, role) is not None]
        roles = assign(found.arrays, job.taps, job.skip, given)
        network = roles.taps
        first, told = _channels_first(job, network)
        for note in (*found.notes, *roles.notes, *told):
            tell(note)
        examples = _examples(place, job, network, roles, tell)
        progress = opened.enter_context(Progress([1]))
        report = opened.enter_context(progress.step(f"importing {job.run}@{job.checkpoint}"))
        store.write_network(
            place.activations,
            network,
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
    return examples.sample_set.name, list(network)


def parse_attributes(texts: tuple[str, ...]) -> dict[str, str | int | float | bool]:
    """Read ``NAME=VALUE``s: true, false, numbers, or else texts; raises ConfigError for others."""
    found: dict[str, str | int | float | bool] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value) or name in found:
            raise ConfigError(
                f"attribute is {text!r}", remedy="write NAME=VALUE, each once, as in depth=3"
            )
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


def _channels_first(job: Import, taps: Mapping[str, ArrayFile]) -> tuple[list[str], list[str]]:
    """Return the taps that have their channels second, and what has to be said of them."""
    for pattern in job.channels_last:
        if not any(fits(name, pattern) for name in taps):
            raise ConfigError(f"channels-last is {pattern!r}, and fits none of {', '.join(taps)}")
    deep = {name: array.shape for name, array in taps.items() if len(array.shape) in (3, 4)}
    if not job.channels_first:
        odd = {name: shape for name, shape in deep.items() if _looks_first(shape)}
        return [], [
            f"{name} {shape} is read as (n, h, w, c), of {shape[-1]} channels; --channels-first"
            " reads (n, c, h, w)"
            for name, shape in odd.items()
        ]
    last = {name for name in deep for p in job.channels_last if fits(name, p)}
    first = {name: shape for name, shape in deep.items() if name not in last}
    return list(first), [
        f"{name} {shape} is read as (n, c, position), of {shape[1]} channels; with --channels-last"
        f" {name} as (n, position, c)"
        for name, shape in first.items()
        if len(shape) == 3
    ]


def _looks_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2] == shape[3] != shape[1]


def _examples(
    place: Workspace, job: Import, network: Mapping[str, ArrayFile], roles: Roles, tell: Tell
) -> store.Examples:
    n_rows = {array.shape[0] for array in network.values() if array.shape}
    # Arrays that have no rows are refused by name later on.
    n = max(n_rows, default=0)
    if n < MINIBATCH.least:
        raise RunError(
            f"the arrays have {n} rows, one an example",
            remedy=f"HSIC needs {MINIBATCH.least} or more",
        )
    given = {
        "labels": roles.labels if job.labels is None else _labels(job.labels, tell),
        "indices": roles.samples if job.samples is None else _samples(job.samples),
        "images": None if job.images is None else _images(job.images, job.channels_first),
    }
    if job.like is not None:
        return store.Examples.like(stored_like(place, job.like, n, job.sample_set), **given)
    examples = store.Examples.of(str(job.dataset), str(job.split), n, **given)
    if given["indices"] is not None:
        return examples
    return numbered_as_stored(place, examples, job.run, job.checkpoint)


def _labels(text: str, tell: Tell) -> npt.NDArray[Any]:
    with open_array(text) as found:
        classes, told = as_classes(found.source, found.read_all())
    if told:
        tell(f"the labels of {found.source} are taken as {told}")
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
