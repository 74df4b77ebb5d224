"""Options of the command line, made from the settings that they give."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

import click

from allcnn.cluster.spec import THREADS
from allcnn.commands import DEFAULT_ROOT
from allcnn.definitions.fields import Setting, but, only
from allcnn.definitions.registry import Registry
from allcnn.networks.architectures import ARCHITECTURES
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import Extraction, StoredDType
from allcnn.settings.run import RunConfig
from allcnn.similarity.method import OBJECTS, Method
from flows.settings.help import HELP
from flows.settings.texts import parse_fractions

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

REGISTRIES: dict[str, Registry[Any]] = {**OBJECTS, "architecture": ARCHITECTURES}
"""Objects that options name; those of other packages bring options of their own."""


def option(flag: str, default: Any = None, *, topic: str | None = None, **kwargs: Any) -> Decorator:
    """Return a click option with the help line of its topic, by default that of its flag."""
    name = flag.removeprefix("--").replace("-", "_")
    shown = default is not None
    return click.option(
        flag, name, default=default, show_default=shown, help=HELP[topic or name], **kwargs
    )


def option_of(setting: Setting, flag: str = "", default: Any = None) -> click.Option:
    """Return the option that gives a setting."""
    default = setting.default if default is None else default
    if setting.several and not isinstance(default, str):
        default = f"{default:g}"
    kind: Any = setting.kind
    if setting.choices:
        kind = click.Choice(setting.choices)
    elif setting.several:
        kind = str
    return click.Option(
        [f"--{flag or setting.flag}", (flag or setting.name).replace("-", "_")],
        default=default,
        show_default=default is not None,
        type=kind,
        help=setting.help,
        metavar=setting.metavar or None,
        callback=_read_several if setting.several else None,
    )


def _read_several(_: click.Context, parameter: click.Parameter, text: str) -> tuple[float, ...]:
    return parse_fractions(str(parameter.name), text)


def giving(
    settings: Iterable[Setting], flags: Mapping[str, str] = {}, **defaults: Any
) -> Decorator:
    """Return what adds an option for each of some settings, in this order.

    Args:
        settings: what is given.
        flags: names of options, where they are other ones than the settings'.
        defaults: of this command, where they are other ones.
    """
    made = [option_of(s, flags.get(s.name, ""), defaults.get(s.name)) for s in settings]

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        # As click's own decorators do, from the last one on.
        parameters = command.__dict__.setdefault("__click_params__", [])
        parameters.extend(reversed(made))
        return command

    return add


def given() -> list[str]:
    """Return the names of what the command line of the running command gives."""
    context, source = click.get_current_context(), click.core.ParameterSource.COMMANDLINE
    return [name for name in context.params if context.get_parameter_source(name) is source]


def take_methods(values: dict[str, Any]) -> tuple[Method, ...]:
    """Take the settings of methods out of a command's values, and return the methods."""
    known = Method.settings(*(str(values[name]) for name in REGISTRIES if name in values))
    mine = {name: values.pop(name) for name in known if name in values}
    return Method.several(mine, [name for name in given() if name in mine])


def _note_root(context: click.Context, _: click.Parameter, root: str) -> str:
    context.meta[ROOT] = root
    return root


ROOT = "allcnn.workspace"
"""Where a command's context keeps its workspace, for what is advised when it fails."""

workspace = option("--workspace", DEFAULT_ROOT, metavar="FOLDER", callback=_note_root)
training = giving(but(RunConfig.settings(), "depth", "seed"))
"""The settings of a run, but for depth and seed."""

pool = giving(only(Method, "pool"))
json_file: Decorator = click.option(
    "--json", "json_path", type=click.Path(dir_okay=False), help=HELP["json_path"]
)
kernels = giving(but(Method.settings(), "batch_size"))
"""The measure, the kernel, their settings, and the pooling."""

methods = giving(Method.settings().values())
"""All that a method is made of."""

samples = giving(only(Extraction, "n_samples"))
sample_set = giving(only(Comparison, "sample_set"))
cluster = option("--cluster", str(THREADS), metavar="WHERE")
dtype = giving(only(Extraction, "dtype"))
stored_dtype: Decorator = click.option(
    "--dtype",
    default=Extraction.dtype,
    show_default=True,
    type=click.Choice(get_args(StoredDType)),
    help="of the stored activations; float64 for features whose mean is far from zero",
)
compression = giving(only(Extraction, "compression"))
minibatch = giving(only(Extraction, "batch_size"), {"batch_size": "minibatch"})

_CHOOSING: list[Decorator] = [
    sample_set,
    option("--label", type=int, metavar="N"),
    click.option("--each-label", is_flag=True, help=HELP["each_label"]),
    giving(only(Comparison, "permutations", "unusable")),
]
_SHOWING: list[Decorator] = [
    click.option("--errors", is_flag=True, help=HELP["errors"]),
    click.option("--convergence", is_flag=True, help=HELP["convergence"]),
    json_file,
]


def comparing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all that decides the numbers of a comparison, and where they are computed."""
    return stack([methods, *_CHOOSING, cluster], command)


def showing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what is shown of a comparison, and where it is written."""
    return stack(_SHOWING, command)


def stack(decorators: Iterable[Decorator], command: Callable[..., Any]) -> Callable[..., Any]:
    """Apply decorators so that their options stand in the order given."""
    for decorator in reversed(list(decorators)):
        command = decorator(command)
    return command
