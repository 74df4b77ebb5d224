"""``allcnn store import``: activations of other people's networks."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from allcnn.definitions.fields import check_settings, only, setting, settings_of
from allcnn.errors import ConfigError
from allcnn.settings.extraction import Compression, Extraction, StoredDType
from allcnn.settings.selection import Selection
from flows.cli import options
from flows.settings import texts
from flows.settings.shared import MINIBATCH


def _file(help: str) -> Any:
    return setting(None, help, read=lambda text: str(texts.local_file(text)), metavar="FILE")


@dataclass(frozen=True)
class Import:
    """Files of activations, their network, and the examples that their rows are of.

    ``labels``, ``samples`` and ``images`` are only checked beside ``like``, which has its own.
    """

    files: tuple[Path, ...]
    minibatch: int
    compression: Compression
    attributes: dict[str, str | int | float | bool]
    stack: bool | None
    run: str = setting(help="what to call the network", names="run")
    checkpoint: str = setting("final", "its state", names="checkpoint")
    taps: tuple[str, ...] = setting(
        (),
        "an array that is a layer, and its new name; may be repeated [default: all that can be]",
        read=str,
        metavar="[NEW=]NAME",
        option="tap",
    )
    skip: tuple[str, ...] = setting(
        (),
        "arrays that are left out, with *, ? and [...]; may be repeated",
        read=str,
        metavar="PATTERN",
    )
    dataset: str | None = setting(
        None, "the data set that the rows are examples of", names="dataset"
    )
    split: str | None = setting(None, "its part, such as test", names="split")
    labels: str | None = _file("every row's class: FILE, or FILE:NAME of one array")
    samples: str | None = _file("every row's index in the data set, likewise")
    images: str | None = _file(
        "the images, uint8 (n, h, w, c), by which the examples are recognised, likewise"
    )
    like: Selection | None = setting(
        None,
        "a stored network over the same examples in the same order, instead of data set and split",
        read=texts.network,
        metavar="RUN@CHECKPOINT",
    )
    sample_set: str | None = setting(None, "which of its sample sets", metavar="NAME")
    dtype: StoredDType = setting(
        "float32",
        "of the stored activations; float64 for features whose mean is far from zero",
        choices=get_args(StoredDType),
    )
    channels_first: bool = setting(
        False, "arrays are (n, c, h, w) and (n, c, position), images too, as in PyTorch"
    )
    channels_last: tuple[str, ...] = setting(
        (),
        "layers, such as 'block*', that are (n, position, c) all the same; may be repeated",
        read=str,
        metavar="PATTERN",
    )
    digest: str | None = setting(
        None,
        "what stands for the network's parameters, such as the SHA-256 of their file: shows that"
        " imports on other examples are of the same network [default: a digest of the rows]",
        metavar="TEXT",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        MINIBATCH.check(self.minibatch)
        if self.digest is not None and not re.fullmatch(r"[!-~]{1,200}", self.digest):
            wanted = "use 1 to 200 letters, digits and signs, no spaces"
            raise ConfigError("digest", f"is {self.digest!r}", wanted)
        for name, value in (("dataset", self.dataset), ("split", self.split)):
            if value is None and self.like is None:
                raise ConfigError(
                    name,
                    "is not given",
                    remedy="say of which examples the rows are, with --dataset and --split, or with"
                    " --like RUN@CHECKPOINT",
                )
            if value is not None and self.like is not None:
                raise ConfigError(f"{name} and like exclude each other", remedy="leave one out")
        if self.sample_set is not None and self.like is None:
            raise ConfigError("sample-set chooses among those of --like", remedy="leave it out")
        if self.channels_last and not self.channels_first:
            raise ConfigError(
                "channels-last excepts layers from --channels-first", remedy="give both"
            )


@click.command("import")
@options.argument("files", "FILE...", texts.local_file, nargs=-1, required=True)
@options.workspace
@options.giving([*settings_of(Import).values(), *only(Extraction, "compression"), MINIBATCH])
@click.option(
    "--stack/--no-stack",
    default=None,
    help="whether each file of a folder is an example [default: where it can be nothing else]",
)
@options.option(
    "attributes",
    (),
    "a fact about the network, such as depth=18; may be repeated",
    read=str,
    metavar="NAME=VALUE",
    option="attribute",
)
def import_arrays(place: Any, attributes: tuple[str, ...], **how: Any) -> None:
    """Take the activations of your own network from files, each array a tap.

    A FILE is an .npz, .npy, .safetensors, .pt, .h5, .mat, .csv or .parquet file, a .zarr folder, or
    a folder of such files. Rows are examples: (n, channels), (n, positions, channels) or
    (n, h, w, channels). An array named labels or samples is the classes or the indices in the data
    set. A note names each other array that is no layer and is left out. The last line is the sample
    set; killed and run again, it goes on.
    """
    from flows.cli.imports import import_files, parse_attributes

    job = Import(attributes=parse_attributes(attributes), **how)
    sample_set, taps = import_files(place, job)
    click.echo(f"{job.run}@{job.checkpoint}: {', '.join(taps)}")
    click.echo(sample_set)
