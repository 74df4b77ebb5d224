"""``allcnn probe``: how well a linear classifier does on each tap."""

import click

from allcnn.errors import ConfigError
from allcnn.settings.probing import Probing
from allcnn.settings.selection import Selection
from flows.cli import options
from flows.cli.options import option
from flows.settings import texts
from flows.settings.texts import parse_fractions


@click.command()
@click.argument("pattern", metavar="PATTERN")
@options.workspace
@option("--train-set", metavar="NAME")
@option("--test-set", metavar="NAME")
@options.pool
@option("--penalties", metavar="LIST")
@options.json_file
def probe(
    pattern: str,
    workspace: str,
    train_set: str | None,
    test_set: str | None,
    pool: str,
    penalties: str | None,
    json_path: str | None,
) -> None:
    """Train a linear classifier on each tap of networks, and tell how well it does.

    PATTERN is RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]; quote it, or the shell
    expands it. Logistic regression with an l2 penalty on stored activations of the training split,
    tested on those of the test split (Kornblith et al. 2019, Figure 3).
    """
    factors = Probing.penalties if penalties is None else parse_fractions("penalties", penalties)
    networks = Selection.parse(pattern)
    job = Probing(networks, train_set, test_set, pool, factors)  # type: ignore[arg-type]
    folder = None if json_path is None else texts.local_file(json_path).parent
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"json is {json_path}, and {folder} is no folder", remedy="make it first")
    from allcnn.workspace.snapshot import Snapshot
    from flows.cli.probes import run_probe, show

    place = Snapshot.at(workspace)
    show(place, run_probe(place, job), json_path)
