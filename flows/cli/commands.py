"""Commands whose options follow from the objects that they name."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import click

from flows.cli.options import REGISTRIES, given, option_of
from flows.settings.ineffective import check_effective


class Command(click.Command):
    """A command with the options of what it names, which refuses those without effect."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Add the options of kernels, measures and architectures of other packages, then read."""
        known = {parameter.name for parameter in self.params}
        for kind, name in _named(args):
            if kind in known and ":" in name:
                for setting in REGISTRIES[kind].settings(name).values():
                    if setting.name not in known:
                        ctx.meta.setdefault(_ADDED, []).append(option_of(setting))
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return its own options, and those that were added."""
        return [*super().get_params(ctx), *ctx.meta.get(_ADDED, [])]

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; raises ConfigError for an option that others leave without effect."""
        with ctx:
            check_effective(given(), ctx.params)
        return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


_ADDED = "allcnn.added_options"


def _named(args: list[str]) -> Iterator[tuple[str, str]]:
    for word, following in pairwise([*args, ""]):
        flag, _, value = word.partition("=")
        if flag.removeprefix("--") in REGISTRIES and flag.startswith("--"):
            yield flag.removeprefix("--"), value or following
