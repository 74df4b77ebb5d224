"""Options of the command line, made from the settings that they give."""

from collections.abc import Callable, Iterable
from dataclasses import MISSING, replace
from functools import partial, wraps
from typing import Any

import click

from allcnn.cluster.spec import CLUSTER
from allcnn.definitions.fields import Setting, but, only
from allcnn.definitions.registry import Registry
from allcnn.networks.architectures import ARCHITECTURES
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import Extraction
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.similarity.method import OBJECTS, Method
from flows.settings import texts
from flows.settings.shared import DEPTHS, ERRORS, MINIBATCH, PRESET, SEEDS, WORKSPACE

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

REGISTRIES: dict[str, Registry[Any]] = {**OBJECTS, "architecture": ARCHITECTURES}
"""Objects that options name; those of other packages bring options of their own."""


def option_of(setting: Setting) -> click.Option:
    """Return the option that gives a setting."""
    is_required, flag, help = setting.default is MISSING, f"--{setting.flag}", setting.help
    default = None if is_required else setting.to_json(setting.default)
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
        **({"required": True} if is_required else {"default": default}),
        show_default=default is not None and "[default" not in help,
        type=kind,
        is_flag=kind is bool or None,
        multiple=is_repeated,
        help=help,
        metavar=setting.placeholder or None,
        callback=lambda _, __, given: _read(setting, given, is_text),
    )


def _read(setting: Setting, given: Any, is_text: bool) -> Any:
    """Return an option as a value; raises ConfigError for a text that is none."""
    if not is_text or given is None:
        return given if given is None else setting.value(given)
    if setting.choices:
        return texts.words(given)
    return (texts.parse_numbers if setting.kind is int else texts.parse_fractions)(
        setting.flag, given
    )


def giving(settings: Iterable[Setting]) -> Decorator:
    """Return what adds an option for each of some settings, in this order."""
    made = [option_of(each) for each in settings]

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        # As click's own decorators do, from the last one on.
        parameters = command.__dict__.setdefault("__click_params__", [])
        parameters.extend(reversed(made))
        return command

    return add


def option(name: str, default: Any = MISSING, help: str = "", **more: Any) -> Decorator:
    """Return an option that is no setting of a dataclass; keywords are those of ``Setting``."""
    return giving([Setting(name, default, help, **more)])


def stacked(*decorators: Decorator) -> Decorator:
    """Return what applies decorators so that their options stand in the order given."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


def given() -> list[str]:
    """Return the names of what the command line of the running command gives."""
    context, source = click.get_current_context(), click.core.ParameterSource.COMMANDLINE
    return [name for name in context.params if context.get_parameter_source(name) is source]


def take_methods(values: dict[str, Any]) -> tuple[Method, ...]:
    """Take the settings of methods out of a command's values, and return the methods."""
    known = Method.settings(*(str(values[name]) for name in REGISTRIES if name in values))
    names = {name: name for name in known}
    if "minibatch" in values:  # beside that of training
        names["batch_size"] = "minibatch"
    mine = {name: values.pop(own) for name, own in names.items() if own in values}
    return Method.several(mine, [name for name in given() if name in mine])


def argument(
    name: str,
    metavar: str = "RUN@CHECKPOINT",
    read: Callable[[str], Any] = Selection.parse,
    **how: Any,
) -> Decorator:
    """Return an argument that is read, by default as a selection, and so each of several."""

    def callback(_: object, __: object, given: Any) -> Any:
        if isinstance(given, tuple):
            return tuple(map(read, given))
        return None if given is None else read(given)

    return click.argument(name, metavar=metavar, callback=callback, **how)


def workspace(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option of the workspace, which the command gets opened, as its ``place``."""

    @wraps(function)
    def run(*args: Any, workspace: str, **values: Any) -> Any:
        from allcnn.workspace.paths import Workspace

        click.get_current_context().meta[ROOT] = workspace
        return function(*args, place=Workspace.at(workspace), **values)

    return giving([WORKSPACE])(run)


ROOT = "allcnn.workspace"
"""Where a command's context keeps its workspace, for what is advised when it fails."""

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
kernels = giving(but(Method.settings(), "batch_size"))
"""The measure, the kernel, their settings, and the pooling."""

methods = giving(Method.settings().values())
"""All that a method is made of."""

pool = giving(only(Method, "pool"))
sample_set = giving(only(Comparison, "sample_set"))
minibatch = giving([MINIBATCH])
cluster = giving([CLUSTER])
label = giving(only(Comparison, "label"))
errors = giving([ERRORS])
exclude = option(
    "exclude",
    "logits",
    "taps that are left out, separated by commas",
    read=texts.taps,
    metavar="LIST",
)
as_json = option("as_json", False, "print one JSON document, for programs", option="json")
json_file = option(
    "json_path",
    None,
    "file to write the numbers to",
    read=partial(texts.file_to_write, "json"),
    metavar="FILE",
    option="json",
)
yes = option("yes", False, "remove without asking")
pattern: Decorator = click.argument("pattern", metavar="[PATTERN]", required=False)
some_networks = argument("pattern", "[PATTERN]", texts.networks, required=False)

comparing = stacked(
    methods,
    sample_set,
    label,
    option("each_label", False, only(Comparison, "label")[0].each),
    giving(only(Comparison, "permutations", "unusable")),
    cluster,
)
"""All that decides the numbers of a comparison, and where they are computed."""

showing = stacked(
    errors, option("convergence", False, "draw values against the number of minibatches"), json_file
)
"""All that is shown of a comparison, and where it is written."""
