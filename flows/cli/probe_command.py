"""``allcnn probe``: how well a linear classifier does on each tap."""

from typing import Any

import click

from allcnn.definitions.fields import but
from allcnn.errors import ConfigError
from allcnn.settings.probing import Probing
from allcnn.settings.selection import Selection
from flows.cli import options
from flows.settings import texts


@click.command()
@click.argument("pattern", metavar="PATTERN")
@options.workspace
@options.giving(but(Probing, "networks"))
@options.json_file
def probe(pattern: str, workspace: str, json_path: str | None, **how: Any) -> None:
    """Train a linear classifier on each tap of networks, and tell how well it does.

    PATTERN is RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]; quote it, or the shell
    expands it. Logistic regression with an l2 penalty on stored activations of the training split,
    tested on those of the test split (Kornblith et al. 2019, Figure 3).
    """
    job = Probing(Selection.parse(pattern), **how)
    folder = None if json_path is None else texts.local_file(json_path).parent
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"json is {json_path}, and {folder} is no folder", remedy="make it first")
    from allcnn.workspace.snapshot import Snapshot
    from flows.cli.probes import run_probe, show

    place = Snapshot.at(workspace)
    show(place, run_probe(place, job), json_path)
