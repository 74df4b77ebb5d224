"""``allcnn store import``: activations of other people's networks."""

from typing import Any

import click

from allcnn.settings.selection import Selection
from flows.cli import options
from flows.settings import texts


@click.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@options.workspace
@click.option("--run", required=True, metavar="NAME", help="what to call the network")
@click.option("--checkpoint", default="final", show_default=True, metavar="NAME", help="its state")
@click.option(
    "--tap",
    "taps",
    multiple=True,
    metavar="[NEW=]NAME",
    help="an array that is a layer, and its new name; may be repeated [default: all that can be]",
)
@click.option(
    "--skip",
    multiple=True,
    metavar="PATTERN",
    help="arrays that are left out, with *, ? and [...]; may be repeated",
)
@click.option(
    "--stack/--no-stack",
    default=None,
    help="whether each file of a folder is an example [default: where it can be nothing else]",
)
@click.option("--dataset", metavar="NAME", help="the data set that the rows are examples of")
@click.option("--split", metavar="NAME", help="its part, such as test")
@click.option("--labels", metavar="FILE", help="every row's class: FILE, or FILE:NAME of one array")
@click.option("--samples", metavar="FILE", help="every row's index in the data set, likewise")
@click.option(
    "--images",
    metavar="FILE",
    help="the images, uint8 (n, h, w, c), by which the examples are recognised, likewise",
)
@click.option(
    "--like",
    metavar="RUN@CHECKPOINT",
    help="a stored network over the same examples in the same order, instead of data set and split",
)
@click.option("--sample-set", metavar="NAME", help="which of its sample sets")
@options.stored_dtype
@options.compression
@options.minibatch
@click.option(
    "--channels-first",
    is_flag=True,
    help="arrays are (n, c, h, w) and (n, c, position), images too, as in PyTorch",
)
@click.option(
    "--channels-last",
    multiple=True,
    metavar="PATTERN",
    help="layers, such as 'block*', that are (n, position, c) all the same; may be repeated",
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME=VALUE",
    help="a fact about the network, such as depth=18; may be repeated",
)
@click.option(
    "--digest",
    metavar="TEXT",
    help="what stands for the network's parameters, such as the SHA-256 of their file: tells that"
    " imports on other examples are of the same network [default: a digest of the rows]",
)
def import_arrays(files: tuple[str, ...], attributes: tuple[str, ...], **how: Any) -> None:
    """Take the activations of your own network from files, each array a tap.

    A FILE is an .npz, .npy, .safetensors, .pt, .h5, .mat, .csv or .parquet file, a .zarr folder, or
    a folder of such files. Rows are examples: (n, channels), (n, positions, channels) or
    (n, h, w, channels). An array named labels or samples is the classes or the indices in the data
    set. A line says of each other array that is no layer that it is left out. The last line is the
    sample set; killed and asked for again, it goes on.
    """
    from allcnn.workspace.paths import Workspace
    from flows.cli.import_examples import incomparable
    from flows.cli.imports import Import, import_files, parse_attributes

    place, like = Workspace.at(how.pop("workspace")), how.pop("like")
    for name in ("labels", "samples", "images"):
        how[name] = None if how[name] is None else str(texts.local_file(how[name]))
    job = Import(
        files=tuple(map(texts.local_file, files)),
        like=None if like is None else Selection.parse(like),
        attributes=parse_attributes(attributes),
        **how,
    )
    sample_set, taps = import_files(place, job, _note)
    for note in incomparable(place, sample_set) if like is None else []:
        click.echo(note, err=True)
    click.echo(f"{job.run}@{job.checkpoint}: {', '.join(taps)}")
    click.echo(sample_set)


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)
