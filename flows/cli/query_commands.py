"""Commands that look into the stores: ``store ls``, ``show``, ``query`` and ``verify``.

They import what they need, so that ``--help`` answers at once.
"""

import re
from dataclasses import asdict
from functools import partial
from typing import Any

import click

from allcnn.errors import ConfigError
from allcnn.settings.selection import EVERYTHING, Selection
from flows.cli import options
from flows.cli.options import Decorator, option
from flows.settings import texts
from flows.views.terminal import show

_ROWS = re.compile(r"([+-]?\d+)?:([+-]?\d+)?")

_sample_set = option(
    "sample_set", None, "only on this sample set, where there are several", metavar="NAME"
)


def _rows(text: str) -> slice:
    found = _ROWS.fullmatch(text.strip())
    if not found:
        raise ConfigError(f"rows is {text!r}", remedy="write A:B, as in 0:256, 256: or :64")
    first, stop = (None if bound is None else int(bound) for bound in found.groups())
    return slice(first, stop)


def _numbers(name: str, help: str) -> Decorator:
    return option(name, None, help, read=partial(texts.parse_numbers, name), metavar="LIST")


@click.command("ls")
@options.some_networks
@option(
    "where",
    (),
    "name and value with =, !=, >=, >, <= or <, such as 'epoch>=5' or 'seed=0,1'; repeatable",
    read=str,
    metavar="COMPARISON",
)
@options.as_json
@options.workspace
def list_store(
    pattern: Selection | None, where: tuple[str, ...], as_json: bool, place: Any
) -> None:
    """List what is stored: activations, kept Grams, results of comparisons and linear probes.

    One line a run, checkpoint and sample set; a line a result or a probe. PATTERN is RUN,
    RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]; quote it. TAP is all that follows the
    colon, and may be a tap's name, whatever characters it has. Names to compare with
    --where are sample_set, run, checkpoint, tap, dataset, split, n_samples, dtype, complete and
    every attribute of a network, such as depth, seed and epoch; of Grams also kernel, pool and
    batch_size; of results measure, kernel, sigma, estimator, pool, batch_size and label, and all
    names of what they compare; of probes pool, and all names of what they were tested on.
    """
    from flows.views.browse import list_stores, listing_json
    from flows.views.listing import listing_table

    listing = list_stores(place, pattern, where)
    show(listing_json(listing) if as_json else listing_table(place, listing))


@click.command("show")
@options.argument("pattern", "PATTERN", texts.networks)
@_sample_set
@options.as_json
@options.workspace
def show_store(pattern: Selection, sample_set: str | None, as_json: bool, place: Any) -> None:
    """Show what is known of a network: one line a tap, who wrote it, and which Grams are kept.

    PATTERN is RUN, RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]; quote it. The digest
    of a tap stands for its rows: it is the same wherever the same rows are stored in the same
    minibatches.
    """
    from flows.views.browse import describe_networks
    from flows.views.listing import damage_lines, network_table

    networks, damaged = describe_networks(place, pattern, sample_set)
    if as_json:
        show({"networks": networks, "damaged": list(map(asdict, damaged))})
    else:
        lines = [damage_lines(place, damaged)] if damaged else []
        show("\n\n".join([*map(network_table, networks), *lines]))


@click.command("query")
@options.argument("pattern", "RUN@CHECKPOINT:TAP")
@option("to", help="file to write: .npz, .csv or .parquet", metavar="FILE")
@option("rows", None, "rows A to B - 1; either may be left out", read=_rows, metavar="A:B")
@_numbers("label", "only examples of these classes, such as 3 or 0-4,7")
@_numbers("channels", "only these channels, such as 0,5-9")
@options.pool
@_sample_set
@option("overwrite", False, "replace a file that exists")
@options.workspace
def query_store(
    place: Any,
    pattern: Selection,
    to: str,
    overwrite: bool,
    sample_set: str | None,
    pool: str,
    **part: Any,
) -> None:
    """Write the activations of one tap, or a part of them, to a file.

    TAP is all that follows the colon: a tap's name, or a pattern that one alone fits.
    .npz holds the arrays values, samples, labels and metadata (a JSON text); .csv and .parquet have
    one line an example: sample, label, then one column a feature, such as y0_x0_c12.
    """
    path = texts.file_to_write("to", to, "" if overwrite else "--overwrite")
    from flows.views import export
    from flows.views.progress import Progress

    export.check_ending(path)
    tap = export.find_one(place, pattern, sample_set)
    if part["rows"] is not None:
        export.check_rows(tap, part["rows"])
    selection = tap.select(**part, space="mean" if pool == "mean" else None)
    with Progress([1]) as progress, progress.step("writing") as report:
        export.write(selection, path, report)
    shape = " x ".join(map(str, selection.shape))
    click.echo(f"{path}  {shape} values of {tap.key} on {tap.key.sample_set}")


@click.command("verify")
@options.some_networks
@options.workspace
@option(
    "want_repair",
    False,
    "compute again what is damaged, where its checkpoint still exists",
    option="repair",
)
@options.as_json
@click.pass_context
def verify(
    context: click.Context, pattern: Selection | None, place: Any, want_repair: bool, as_json: bool
) -> None:
    """Read all stores and runs with their checkpoints, and name what is not as it was written.

    A pattern is RUN, RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]. The exit status is
    1 where damage is left.
    """
    from allcnn.maintenance.findings import Outcome
    from allcnn.workspace.paths import Snapshot
    from flows.cli import verification

    seen = Snapshot.of(place)
    found = verification.look_through(seen, pattern or EVERYTHING)
    if want_repair and found.damage:
        outcomes = verification.repair_all(place, found.damage)
    else:
        outcomes = [Outcome(each) for each in found.damage]
    if as_json:
        show(verification.as_json(found, outcomes))
    else:
        show("\n".join(verification.report_lines(seen, found, outcomes)))
    if not all(each.repaired for each in outcomes):
        context.exit(1)
