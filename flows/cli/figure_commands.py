"""``allcnn figure``: every published figure by one command, from what is stored."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import click

from allcnn.cluster.spec import THREADS
from allcnn.definitions.fields import but, check_name
from allcnn.errors import ConfigError
from allcnn.settings.selection import Selection
from allcnn.similarity.kernels import Rbf
from allcnn.similarity.measures import Cka
from allcnn.similarity.method import Method
from flows.cli import commands, options
from flows.cli.options import Decorator, option
from flows.settings import texts


@click.group(
    "figure",
    cls=commands.CommandGroup,
    epilog="Stored results are drawn, whether or not activations and Grams are still there; missing"
    " ones are computed first, and kept.",
)
def figure() -> None:
    """Draw the published figures; the lines printed are the files written."""


_TO = option(
    "to",
    (),
    "a file to write, once or several times: .png, .pdf or .svg, of a film .gif or .mp4 [default:"
    " one in the workspace's figures/]",
    read=str,
    metavar="FILE",
)
_FOR = option(
    "purpose",
    "page",
    "column: 3.3 inches wide, readable in print",
    choices=("page", "column"),
    option="for",
)
_NAMES = option(
    "names", "taps", "of layers: those of their taps, or L1, L2, …", choices=("taps", "numbers")
)
_TITLE = option("title", None, "in place of the one that shows the method", metavar="TEXT")
_SAMPLE_SET = option(
    "sample_set",
    None,
    "name of a stored sample set [default: the largest that has results, rather of test than of"
    " training examples]",
    metavar="NAME",
)
_COMPARED = (options.methods, _SAMPLE_SET, options.cluster)
_OF_BANDWIDTHS = (
    options.giving(
        replace(each, default=(0.2, 0.4, 0.8)) if each.name == "sigma" else each
        for each in but(Method.settings(), "measure", "kernel")
    ),
    _SAMPLE_SET,
    options.cluster,
)


def _checkpoints(text: str) -> tuple[str, ...]:
    names = texts.words(text)
    if not all(names):
        raise ConfigError("checkpoints", f"is {text!r}", "write names, as in init,epoch-0005,final")
    return tuple(check_name("checkpoint", name) for name in names)


def _sides(read: Callable[[str], Selection] = Selection.parse) -> Decorator:
    """Return two sides, of which the second may be left out for the first."""
    second = options.argument("columns", "[RUN@CHECKPOINT]", read, required=False)
    return options.stacked(options.argument("rows", read=read), second)


def _figure(
    module: str,
    *own: Decorator,
    compared: Sequence[Decorator] = _COMPARED,
    names: bool = True,
    film: bool = False,
    several: bool = False,
) -> Callable[[Callable[[], None]], click.Command]:
    """Return what adds a figure's command, of the name and with the help of a function.

    ``draw_NAME`` of a module of ``flows.figures`` draws it; ``own`` are its arguments and options,
    which that function gets by name, ``compared`` those that say how representations are compared.
    Figures with ``names`` show layers; those of ``several`` methods RBF CKA for several bandwidths.
    """

    def add(described: Callable[[], None]) -> click.Command:
        def run(
            place: Any,
            to: Sequence[str],
            purpose: Any,
            title: str | None,
            names: Any = "taps",
            **given: Any,
        ) -> None:
            from flows.figures.style import FILMS, PICTURES, Look, parse_files, write

            if several:
                given |= {"measure": Cka.name, "kernel": Rbf.name}
            sources = _sources(place, given, several=several)
            files = parse_files(to, FILMS if film else PICTURES)
            look = Look(purpose, names, title)
            draw = getattr(import_module(f"flows.figures.{module}"), f"draw_{described.__name__}")
            for path in write(place, draw(sources, look, **given), files, look):
                click.echo(path)

        shown = (_TO, _FOR, *([_NAMES] if names else []), _TITLE, options.workspace)
        command = options.stacked(*own, *compared, *shown)(run)
        return figure.command(described.__name__, help=described.__doc__)(command)

    return add


def _sources(place: Any, given: dict[str, Any], *, several: bool) -> Any:
    """Return what results come from; takes out of ``given`` how representations are compared."""
    from allcnn.cluster.cluster import Cluster
    from allcnn.workspace.paths import Snapshot
    from flows.figures.results import Sources

    methods = options.take_methods(given)
    if len(methods) > 1 and not several:
        shown = [each.kernel.title for each in methods]
        raise ConfigError("the kernels", f"are {shown}", "a figure shows one")
    spec = given.pop("cluster", THREADS)
    with Cluster(spec):
        pass  # one that cannot be is refused, also where all is stored and none is needed
    return Sources(Snapshot.of(place), methods, given.pop("sample_set", None), spec)


_PATTERN = options.argument("pattern", "PATTERN")
_NETWORKS = options.argument(
    "networks", "RUN@CHECKPOINT...", texts.network, nargs=-1, required=True
)
_CHECKPOINTS = option(
    "checkpoints",
    None,
    "such as init,epoch-0005,final [default: up to six, denser early]",
    read=_checkpoints,
    metavar="LIST",
)
_RUN = options.argument("run", "RUN", partial(check_name, "run"))
_RUNS: Decorator = click.argument("runs", metavar="RUN...", nargs=-1, required=True)


@_figure("training", _RUNS, compared=(), names=False)
def curves() -> None:
    """Draw loss and accuracy over the epochs of runs, finished or not.

    RUN is a run's name or a pattern with *, ? and [...].
    """


@_figure("pairs", _sides(), options.errors, options.label)
def matrix() -> None:
    """Draw CKA of two networks, or of one with itself, or of all that fit patterns."""


@_figure("pairs", _sides(), options.label)
def errors() -> None:
    """Draw the standard errors of CKA as a map (jackknife over minibatches)."""


@_figure("pairs", _sides(), options.label)
def convergence() -> None:
    """Draw CKA of chosen pairs of layers against the number of minibatches."""


@_figure("training", _RUN, _CHECKPOINTS)
def stages() -> None:
    """Draw a run's final network against chosen checkpoints of it, in a grid."""


@_figure("training", _RUN, film=True)
def animation() -> None:
    """Draw a run's final network against all its stored checkpoints, as a GIF or an MP4.

    Each frame has its epoch and the test accuracy in it. MP4 needs ffmpeg.
    """


@_figure("networks", _NETWORKS)
def depths() -> None:
    """Draw networks side by side: CKA within each, below it the accuracy of linear probes.

    Kornblith et al. 2019, Figure 3; networks without probes have none drawn.
    """


@_figure("networks", _PATTERN)
def seeds() -> None:
    """Draw the mean of CKA over all pairs of the networks that fit, and its spread.

    Networks of one architecture, as in 'tiny-10-*@final' (Kornblith et al. 2019, Figure 2). The
    standard deviation between pairs stands beside the mean, from three networks on: two are one
    pair, which has no spread.
    """


@_figure("networks", _sides(texts.network))
def classes() -> None:
    """Draw one matrix a class, their mean, their spread, and CKA of all classes together.

    Kornblith et al. 2019, F.7: the mean of within-class CKA looks like CKA over all examples.
    """


@_figure(
    "networks",
    options.argument("network", read=texts.network),
    option(
        "samples", 1024, "the first so many examples of the sample set, at least 4", metavar="N"
    ),
    compared=[options.kernels],
)
def invariance() -> None:
    """Draw CKA of a network with copies of it to which CKA is invariant, and with one control.

    Neurons permuted, scaled alike, and rotated; and, as the control, an invertible transformation
    that is not orthogonal. Each with the largest deviation from the untransformed. It needs stored
    activations.
    """


@_figure("networks", _PATTERN, options.exclude, compared=_OF_BANDWIDTHS, names=False, several=True)
def layers() -> None:
    """Draw how often the most similar layer of another network is the corresponding one.

    By linear CKA, RBF CKA and linear HSIC, over all ordered pairs of the networks that fit. For
    Tiny-10 trained on CIFAR-10, beside the published numbers (Kornblith et al. 2019, Table 2).
    """


@_figure("networks", _NETWORKS, compared=())
def probes() -> None:
    """Draw the accuracy of linear probes along the layers, a line a network."""
