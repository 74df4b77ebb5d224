"""Take somebody else's activations from files into a workspace."""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import store
from allcnn.config import MIN_MINIBATCH, DType, Selection, check_name
from allcnn.errors import ConfigError, RunError
from allcnn.workspace import Workspace
from flows.examples import numbered_as_stored, stored_like
from flows.progress import Progress
from store.arrayfiles import ArrayFile, Named, open_arrays, open_npy

_COORDINATES = ("labels", "samples")


@dataclass(frozen=True)
class Import:
    """What to take in, and whose activations over which examples it is.

    Attributes:
        files: .npy and .npz files, or folders of .npy files.
        run: name of the network.
        checkpoint: name of its state.
        taps: names of the .npy files' taps; none for the names of the files.
        dataset: the data set that the examples are of; None with ``like``.
        split: its part; None with ``like``.
        labels: .npy file of the classes; with ``like``, as the next two, to be checked.
        samples: .npy file of the indices in the data set.
        images: .npy file of the images.
        like: a stored network over the same examples, in the same order.
        sample_set: which of its sample sets, where several have as many rows.
        dtype: as stored.
        minibatch: rows of a minibatch of the store.
        channels_first: whether arrays of four axes are (n, c, h, w).
        attributes: facts about the network.
        digest: what stands for its parameters; None for a digest of the rows.
        compression: of the chunks.
    """

    files: tuple[Path, ...]
    run: str
    checkpoint: str = "final"
    taps: tuple[str, ...] = ()
    dataset: str | None = None
    split: str | None = None
    labels: Path | None = None
    samples: Path | None = None
    images: Path | None = None
    like: Selection | None = None
    sample_set: str | None = None
    dtype: DType = "float32"
    minibatch: int = 256
    channels_first: bool = False
    attributes: store.Attributes | None = None
    digest: str | None = None
    compression: store.Compression = "none"

    def __post_init__(self) -> None:
        check_name("run", self.run)
        check_name("checkpoint", self.checkpoint)
        if self.minibatch < MIN_MINIBATCH:
            raise ConfigError(f"minibatch is {self.minibatch}; use {MIN_MINIBATCH} or more")
        if self.digest is not None and not re.fullmatch(r"[!-~]{1,200}", self.digest):
            raise ConfigError(
                f"digest is {self.digest!r}; use 1 to 200 letters, digits and signs, no spaces"
            )
        if self.like is None:
            self._check_described()
        else:
            self._check_like(self.like)
        if self.taps and len(self.taps) != len(self.files):
            raise ConfigError(
                f"tap names {len(self.taps)} taps, and there are {len(self.files)} files; name each"
                " .npy file's, or none"
            )

    def _check_described(self) -> None:
        for name, value in (("dataset", self.dataset), ("split", self.split)):
            if value is None:
                raise ConfigError(
                    f"{name} is not given; say of which examples the rows are, with --dataset and"
                    " --split, or with --like RUN@CHECKPOINT"
                )
            check_name(name, value)
        if self.sample_set is not None:
            raise ConfigError("sample-set chooses among those of --like; leave it out")

    def _check_like(self, like: Selection) -> None:
        for name, value in (("dataset", self.dataset), ("split", self.split)):
            if value is not None:
                raise ConfigError(f"{name} and like exclude each other; leave one out")
        if not like.is_network or like.tap != "*":
            raise ConfigError(f"like is {str(like)!r}; name one network, as in a@final")


def import_files(place: Workspace, job: Import) -> tuple[str, list[str]]:
    """Store what the files hold as the taps of a network; return the sample set and the taps.

    Goes on where it was; what is there already is not written again. Raises RunError for the name
    of a run that is trained here, whose own activations it would stand for.
    """
    if job.run in place.runs():
        raise RunError(
            f"{job.run} is a run of {place.root}, and what is stored under its name is extracted"
            " from it; import under another --run"
        )
    with ExitStack() as opened:
        network = _named(opened.enter_context(open_arrays(job.files)), job)
        own = {name: network.pop(name) for name in _COORDINATES if _is_coordinate(network, name)}
        if not network:
            raise RunError(_no_activations(job, own))
        examples = _examples(place, job, network, own)
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
            channels_first=job.channels_first,
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
            raise ConfigError(f"attribute is {text!r}; write NAME=VALUE, each once, as in depth=3")
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


def _named(found: list[Named], job: Import) -> dict[str, ArrayFile]:
    if job.taps:
        if any(file.suffix != ".npy" for file in job.files):
            raise ConfigError("tap names what .npy files hold; other files name their own taps")
        found = [(tap, array) for tap, (_, array) in zip(job.taps, found, strict=True)]
    network: dict[str, ArrayFile] = {}
    for name, array in found:
        if name in network:
            raise RunError(f"there are two arrays {name!r}; name the taps of .npy files with --tap")
        network[name] = array
    return network


def _no_activations(job: Import, own: Mapping[str, ArrayFile]) -> str:
    files = ", ".join(map(str, job.files))
    return (
        f"{files} holds {' and '.join(own)}, and no activations; give arrays of two to four"
        " axes, examples first"
    )


def _is_coordinate(network: Mapping[str, ArrayFile], name: str) -> bool:
    array = network.get(name)
    return array is not None and len(array.shape) == 1 and array.dtype.kind in "iu"


def _examples(
    place: Workspace, job: Import, network: Mapping[str, ArrayFile], own: Mapping[str, ArrayFile]
) -> store.Examples:
    n_rows = {array.shape[0] for array in network.values() if array.shape}
    # Arrays that differ, or have no rows, are refused by name later on.
    n = max(n_rows, default=0)
    if n < MIN_MINIBATCH:
        raise RunError(
            f"the arrays have {n} rows, one an example; HSIC needs {MIN_MINIBATCH} or more"
        )
    given = {
        "labels": _coordinate(job.labels, own.get("labels")),
        "indices": _coordinate(job.samples, own.get("samples")),
        "images": None if job.images is None else _images(job.images, job.channels_first),
    }
    if job.like is not None:
        return store.Examples.like(stored_like(place, job.like, n, job.sample_set), **given)
    examples = store.Examples.of(str(job.dataset), str(job.split), n, **given)
    if given["indices"] is not None:
        return examples
    return numbered_as_stored(place, examples, job.run, job.checkpoint)


def _images(path: Path, channels_first: bool) -> Any:
    images: Any = open_npy(path)
    if images.dtype != np.uint8 or len(images.shape) != 4:
        axes = "(n, c, h, w)" if channels_first else "(n, h, w, c)"
        raise RunError(
            f"the images in {path} are {images.dtype} of shape {images.shape}; want uint8 {axes}"
        )
    return np.moveaxis(images, 1, -1) if channels_first else images


def _coordinate(path: Path | None, own: ArrayFile | None) -> Any:
    if path is not None:
        return open_npy(path)
    return None if own is None else own[:]
