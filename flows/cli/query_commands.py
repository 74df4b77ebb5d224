"""Commands that look into the stores: ``store ls``, ``store show`` and ``store query``.

They import what they need, so that ``--help`` answers at once.
"""

import json
import re
from dataclasses import asdict
from typing import Any

import click

from allcnn.errors import ConfigError
from allcnn.settings.selection import Selection
from flows.cli import options
from flows.settings import texts
from flows.settings.texts import parse_numbers

_ROWS = re.compile(r"([+-]?\d+)?:([+-]?\d+)?")

as_json = click.option(
    "--json", "as_json", is_flag=True, help="print one JSON document, for scripts"
)
sample_set = click.option(
    "--sample-set", metavar="NAME", help="only on this sample set, where there are several"
)


@click.command("ls")
@click.argument("pattern", required=False)
@click.option(
    "--where",
    multiple=True,
    metavar="COMPARISON",
    help="name and value with =, !=, >=, >, <= or <, such as 'epoch>=5' or 'seed=0,1'; repeatable",
)
@as_json
@options.workspace
def list_store(pattern: str | None, where: tuple[str, ...], as_json: bool, workspace: str) -> None:
    """List what is stored: activations, kept Grams, results of comparisons and linear probes.

    One line a run, checkpoint and sample set; a line a result or a probe. PATTERN is RUN,
    RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]; quote it. TAP is all that follows the
    colon, and may be a tap's name, whatever characters it has. Names to compare with
    --where are sample_set, run, checkpoint, tap, dataset, split, n_samples, dtype, complete and
    every attribute of a network, such as depth, seed and epoch; of Grams also kernel, pool and
    batch_size; of results measure, kernel, sigma, estimator, pool, batch_size and label, and all
    names of what they compare; of probes pool, and all names of what they were tested on.
    """
    chosen = None if pattern is None else texts.networks(pattern)
    from flows.views.browse import list_stores, listing_json
    from flows.views.listing import listing_table

    place = _workspace(workspace)
    listing = list_stores(place, chosen, where)
    _show(listing_json(listing) if as_json else listing_table(place, listing))


@click.command("show")
@click.argument("pattern")
@sample_set
@as_json
@options.workspace
def show_store(pattern: str, sample_set: str | None, as_json: bool, workspace: str) -> None:
    """Show what is known of a network: one line a tap, who wrote it, and which Grams are kept.

    PATTERN is RUN, RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]; quote it. The digest
    of a tap stands for its rows: it is the same wherever the same rows are stored in the same
    minibatches.
    """
    chosen = texts.networks(pattern)
    from flows.views.browse import describe_networks, network_json
    from flows.views.listing import damage_lines, network_table

    place = _workspace(workspace)
    networks, damaged = describe_networks(place, chosen, sample_set)
    if as_json:
        found = {"networks": list(map(network_json, networks))}
        _show(found | {"damaged": list(map(asdict, damaged))})
    else:
        lines = [damage_lines(place, damaged)] if damaged else []
        _show("\n\n".join([*map(network_table, networks), *lines]))


@click.command("query")
@click.argument("pattern", metavar="RUN@CHECKPOINT:TAP")
@click.option("--to", required=True, metavar="FILE", help="file to write: .npz, .csv or .parquet")
@click.option("--rows", metavar="A:B", help="rows A to B - 1; either may be left out")
@click.option("--label", metavar="LIST", help="only examples of these classes, such as 3 or 0-4,7")
@click.option("--channels", metavar="LIST", help="only these channels, such as 0,5-9")
@options.pool
@sample_set
@click.option("--overwrite", is_flag=True, help="replace a file that exists")
@options.workspace
def query_store(
    pattern: str,
    to: str,
    rows: str | None,
    label: str | None,
    channels: str | None,
    pool: str,
    sample_set: str | None,
    overwrite: bool,
    workspace: str,
) -> None:
    """Write the activations of one tap, or a part of them, to a file.

    TAP is all that follows the colon: a tap's name, or a pattern that one alone fits.
    .npz holds the arrays values, samples, labels and metadata (a JSON text); .csv and .parquet have
    one line an example: sample, label, then one column a feature, such as y0_x0_c12.
    """
    chosen = Selection.parse(pattern)
    how: dict[str, Any] = {
        "rows": None if rows is None else _rows(rows),
        "label": None if label is None else list(parse_numbers("label", label)),
        "channels": None if channels is None else list(parse_numbers("channels", channels)),
        "space": None if pool == "whole" else pool,
    }
    path = texts.local_file(to)
    from flows.views import export
    from flows.views.progress import Progress

    export.check_path(path, overwrite)
    tap = export.find_one(_workspace(workspace), chosen, sample_set)
    if rows is not None:
        export.check_rows(tap, how["rows"])
    selection = tap.select(**how)
    with Progress([1]) as progress, progress.step("writing") as report:
        export.write(selection, path, report)
    shape = " x ".join(map(str, selection.shape))
    click.echo(f"{path}  {shape} values of {tap.key} on {tap.key.sample_set}")


def _rows(text: str) -> slice:
    found = _ROWS.fullmatch(text.strip())
    if not found:
        raise ConfigError(f"rows is {text!r}", remedy="write A:B, as in 0:256, 256: or :64")
    first, stop = (None if bound is None else int(bound) for bound in found.groups())
    return slice(first, stop)


def _show(what: Any) -> None:
    text = what if isinstance(what, str) else json.dumps(what, indent=1, allow_nan=False)
    click.echo(text)


def _workspace(root: str) -> Any:
    from allcnn.workspace.paths import Workspace

    return Workspace.at(root)
