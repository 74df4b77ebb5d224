"""``allcnn store import``: activations of other people's networks."""

from typing import Any

import click

from allcnn.config import Extraction, Selection
from flows import options


@click.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@options.workspace
@click.option("--run", required=True, metavar="NAME", help="what to call the network")
@click.option("--checkpoint", default="final", show_default=True, metavar="NAME", help="its state")
@click.option(
    "--tap",
    "taps",
    multiple=True,
    metavar="NAME",
    help="name of a .npy file's tap, once a file [default: the files' names]",
)
@click.option("--dataset", metavar="NAME", help="the data set that the rows are examples of")
@click.option("--split", metavar="NAME", help="its part, such as test")
@click.option("--labels", metavar="FILE", help=".npy file of every row's class")
@click.option("--samples", metavar="FILE", help=".npy file of every row's index in the data set")
@click.option(
    "--images",
    metavar="FILE",
    help=".npy file of the images, uint8 (n, h, w, c), by which the examples are recognised",
)
@click.option(
    "--like",
    metavar="RUN@CHECKPOINT",
    help="a stored network over the same examples in the same order, instead of data set and split",
)
@click.option("--sample-set", metavar="NAME", help="which of its sample sets")
@options.dtype
@options.compression
@options.option("--minibatch", Extraction.batch_size, metavar="N")
@click.option(
    "--channels-first",
    is_flag=True,
    help="arrays of four axes, images too, are (n, c, h, w), as in PyTorch",
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

    A FILE is an .npz (each member a tap, in the order of the file), a .npy, or a folder of .npy
    files. Rows are examples: (n, channels), (n, positions, channels) or (n, h, w, channels). An
    array named labels or samples, of one axis of integers, tells the classes or the indices in the
    data set. The last line is the sample set; killed and asked for again, it goes on.
    """
    from allcnn.workspace import Workspace
    from flows.examples import incomparable
    from flows.importing import Import, import_files, parse_attributes

    place, like = Workspace.at(how.pop("workspace")), how.pop("like")
    for name in ("labels", "samples", "images"):
        how[name] = None if how[name] is None else options.local_file(how[name])
    job = Import(
        files=tuple(map(options.local_file, files)),
        like=None if like is None else Selection.parse(like),
        attributes=parse_attributes(attributes),
        **how,
    )
    sample_set, taps = import_files(place, job)
    for note in incomparable(place, sample_set) if like is None else []:
        click.echo(note, err=True)
    click.echo(f"{job.run}@{job.checkpoint}: {', '.join(taps)}")
    click.echo(sample_set)
