"""Commands whose options follow from the objects that they name, and whose errors are sentences."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import click

from allcnn.commands import command
from allcnn.errors import AllcnnError, ConfigError, in_one_line
from flows.cli.options import REGISTRIES, ROOT, given, option_of
from flows.settings.shared import check_effective
from flows.views.terminal import abandon_output, end_in_silence, prepare

_MOST_LETTERS = 2000
"""In a sentence: a value of a megabyte must not hide it."""

_ADDED = "allcnn.added_options"


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


class CommandGroup(click.Group):
    """A group of such commands."""

    command_class = Command


def _named(args: list[str]) -> Iterator[tuple[str, str]]:
    for word, following in pairwise([*args, ""]):
        flag, _, value = word.partition("=")
        if flag.removeprefix("--") in REGISTRIES and flag.startswith("--"):
            yield flag.removeprefix("--"), value or following


class Program(CommandGroup):
    """Turns the errors that a user can repair into one sentence and an exit status."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program on streams that cannot fail for a letter."""
        prepare()
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments; ``--help`` alone prints already here."""
        with _in_one_sentence():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; status 2 for a wrong setting, 1 for what went wrong later."""
        with _in_one_sentence():
            return super().invoke(ctx)


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    try:
        yield
    except (click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise  # click ends these quietly
    except click.ClickException as error:
        error.message = _shortened(error.message)  # type: ignore[misc]  # of this one instance
        raise
    except ConfigError as error:
        raise _failure(error, 2) from error
    except KeyboardInterrupt as error:
        raise _failure("stopped; the same command goes on where it was", 130) from error
    except Exception as error:
        if (reason := _reason(error)) is None:
            raise
        abandon_output()
        raise _failure(reason, 1) from error


def _reason(error: Exception) -> object | None:
    """Return what to say of an error; None for a mistake of ours."""
    from store.errors import shortage_of

    if shortage := shortage_of(error):
        end_in_silence()
        return shortage
    if isinstance(error, AllcnnError):
        return error
    from store import DamagedChunkError, StoreError

    if isinstance(error, DamagedChunkError):
        context = click.get_current_context(silent=True)
        root = context.meta.get(ROOT) if context else None
        repairing = command(root, "store", "verify", repair=True)
        return f"{error}; {repairing} repairs what a checkpoint still gives"
    if isinstance(error, OSError):
        # The second of two files is the one that was to be there.
        file = error.filename2 or error.filename
        return f"{error.strerror}: {file}" if file else error.strerror or error
    return error if isinstance(error, StoreError) else None


def _shortened(text: str) -> str:
    """Return a sentence, the middle of a very long one left out."""
    if len(text) <= _MOST_LETTERS:
        return text
    half = _MOST_LETTERS // 2
    return f"{text[:half]} ... {text[-half:]}"


def _failure(reason: object, status: int) -> click.ClickException:
    error = click.ClickException(_shortened(in_one_line(reason)))
    error.exit_code = status  # type: ignore[misc]  # click declares what it reads per instance
    return error
