"""Options of the command line, made from the settings that they give."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, get_args

import click

from allcnn.cluster.spec import CLUSTER
from allcnn.definitions.fields import Setting, but, only
from allcnn.definitions.registry import Registry
from allcnn.networks.architectures import ARCHITECTURES
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import Extraction, StoredDType
from allcnn.settings.run import RunConfig
from allcnn.similarity.method import OBJECTS, Method
from flows.settings.shared import DEPTHS, ERRORS, MINIBATCH, PRESET, SEEDS, WORKSPACE
from flows.settings.texts import parse_fractions, parse_numbers, words

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

REGISTRIES: dict[str, Registry[Any]] = {**OBJECTS, "architecture": ARCHITECTURES}
"""Objects that options name; those of other packages bring options of their own."""


def option_of(setting: Setting) -> click.Option:
    """Return the option that gives a setting."""
    default, flag, help = setting.to_json(setting.default), f"--{setting.flag}", setting.help
    kind: Any = click.Choice(setting.choices) if setting.choices else setting.kind
    if kind is bool and default:
        flag += f"/--no-{setting.flag}"
    # Patterns may have commas in them.
    is_repeated = setting.is_list and setting.read is not None
    is_text = (setting.is_list or setting.several) and not is_repeated
    if is_text:
        if setting.kind is int and setting.bounds is not None:
            n = int(setting.bounds.least)
            help += f": numbers and ranges, such as {n},{n + 1} or {n}-{n + 4}"
        kind = str
        if default is not None:
            values = default if isinstance(default, list) else [default]
            default = ",".join(f"{x:g}" if isinstance(x, float) else str(x) for x in values)
    return click.Option(
        [flag, setting.name],
        default=default,
        show_default=default is not None and "[default" not in help,
        type=kind,
        is_flag=kind is bool or None,
        multiple=is_repeated,
        help=help,
        metavar=setting.metavar or None,
        callback=lambda _, __, given: _read(setting, given, is_text),
    )


def _read(setting: Setting, given: Any, is_text: bool) -> Any:
    """Return an option as a value; raises ConfigError for a text that is none."""
    if not is_text or given is None:
        return given if given is None else setting.value(given)
    if setting.choices:
        return words(given)
    return (parse_numbers if setting.kind is int else parse_fractions)(setting.flag, given)


def giving(settings: Iterable[Setting]) -> Decorator:
    """Return what adds an option for each of some settings, in this order."""
    made = [option_of(each) for each in settings]

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

workspace: Decorator = click.option(
    "--workspace",
    default=WORKSPACE.default,
    show_default=True,
    metavar=WORKSPACE.metavar,
    help=WORKSPACE.help,
    callback=_note_root,
)
training = giving(but(RunConfig.settings(), "depth", "seed"))
"""The settings of a run, but for depth and seed."""

network = giving(
    [
        PRESET,
        *only(RunConfig.settings(), "depth", "seed"),
        replace(SEEDS, default=None, several=True),
    ]
)
networks = giving([DEPTHS, SEEDS])
stored = giving([*only(Extraction, "n_samples", "dtype"), MINIBATCH])
pool = giving(only(Method, "pool"))
json_file: Decorator = click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False),
    help="file to write the numbers to",
)
kernels = giving(but(Method.settings(), "batch_size"))
"""The measure, the kernel, their settings, and the pooling."""

methods = giving(Method.settings().values())
"""All that a method is made of."""

sample_set = giving(only(Comparison, "sample_set"))
label = giving(only(Comparison, "label"))
errors = giving([ERRORS])
exclude: Decorator = click.option(
    "--exclude",
    default="logits",
    show_default=True,
    metavar="LIST",
    help="taps that are left out, separated by commas",
)
cluster = giving([CLUSTER])
stored_dtype: Decorator = click.option(
    "--dtype",
    default=Extraction.dtype,
    show_default=True,
    type=click.Choice(get_args(StoredDType)),
    help="of the stored activations; float64 for features whose mean is far from zero",
)
compression = giving(only(Extraction, "compression"))
minibatch = giving([MINIBATCH])

_CHOOSING: list[Decorator] = [
    sample_set,
    label,
    click.option("--each-label", is_flag=True, help=only(Comparison, "label")[0].each),
    giving(only(Comparison, "permutations", "unusable")),
]
_SHOWING: list[Decorator] = [
    errors,
    click.option(
        "--convergence", is_flag=True, help="draw values against the number of minibatches"
    ),
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
