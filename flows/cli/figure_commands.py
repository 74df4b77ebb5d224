"""``allcnn figure``: every published figure by one command, from what is stored."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from allcnn.cluster.spec import THREADS
from allcnn.definitions.fields import but
from allcnn.errors import ConfigError
from allcnn.settings.selection import Selection
from allcnn.similarity.kernels import Rbf
from allcnn.similarity.measures import Cka
from allcnn.similarity.method import Method
from flows.cli import commands, options
from flows.cli.options import Decorator
from flows.settings import texts

if TYPE_CHECKING:
    from flows.figures.results import Request, Sources
    from flows.figures.style import Drawn

_EPILOG = (
    "Stored results are drawn, whether or not activations and Grams are still there; what is not"
    " stored is compared first, and kept."
)


@click.group("figure", cls=commands.Group, epilog=_EPILOG)
def figure() -> None:
    """Draw the published figures; the lines printed are the files written."""


def _looking(command: Callable[..., Any], *, of_layers: bool = True) -> Callable[..., Any]:
    """Add what all figures have: where they go, and how they look."""
    names: Decorator = click.option(
        "--names",
        default="taps",
        show_default=True,
        type=click.Choice(["taps", "numbers"]),
        help="of layers: those of their taps, or L1, L2, …",
    )
    added: list[Decorator] = [
        click.option(
            "--to",
            multiple=True,
            metavar="FILE",
            help="a file to write, once or several times: .png, .pdf or .svg, of a film .gif or"
            " .mp4 [default: one in the workspace's figures/]",
        ),
        click.option(
            "--for",
            "purpose",
            default="page",
            show_default=True,
            type=click.Choice(["page", "column"]),
            help="column: 3.3 inches wide, readable in print",
        ),
        *([names] if of_layers else []),
        click.option("--title", metavar="TEXT", help="in place of the one that tells the method"),
        options.workspace,
    ]
    return options.stack(added, command)


_looking_without_layers = partial(_looking, of_layers=False)


def _comparing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add how representations are compared, and where."""
    return options.stack([options.methods, _SAMPLE_SET, options.cluster], command)


_SAMPLE_SET: Decorator = click.option(
    "--sample-set",
    metavar="NAME",
    help="name of a stored sample set [default: the largest that there are results of,"
    " rather of test than of training examples]",
)
_NETWORKS = click.argument("networks", metavar="RUN@CHECKPOINT...", nargs=-1, required=True)
_SIDES: Sequence[Decorator] = (
    click.argument("rows", metavar="RUN@CHECKPOINT"),
    click.argument("columns", metavar="[RUN@CHECKPOINT]", required=False),
)


def _sides(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add two sides, of which the second may be left out for the first."""
    return options.stack(_SIDES, command)


@figure.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@_looking_without_layers
def curves(runs: tuple[str, ...], workspace: str, **look: Any) -> None:
    """Draw loss and accuracy over the epochs of runs, finished or not.

    RUN is a run's name or a pattern with *, ? and [...].
    """
    from flows.figures import training

    place = _workspace(workspace)
    _draw(place, look, lambda how: training.draw_curves(place, runs, how))


@figure.command()
@_sides
@options.errors
@options.label
@_comparing
@_looking
def matrix(rows: str, columns: str | None, errors: bool, label: int | None, **given: Any) -> None:
    """Draw CKA of two networks, or of one with itself, or of all that fit patterns."""
    from flows.figures import pairs

    sources, request, look = _parse(given)
    job = request.job(*_selections(rows, columns), label=label)
    _draw(sources.place, look, lambda how: pairs.draw_matrix(sources, job, how, errors=errors))


@figure.command()
@_sides
@options.label
@_comparing
@_looking
def errors(rows: str, columns: str | None, label: int | None, **given: Any) -> None:
    """Draw the standard errors of CKA as a map (jackknife over minibatches)."""
    from flows.figures import pairs

    sources, request, look = _parse(given)
    job = request.job(*_selections(rows, columns), label=label)
    _draw(sources.place, look, lambda how: pairs.draw_errors(sources, job, how))


@figure.command()
@_sides
@options.label
@_comparing
@_looking
def convergence(rows: str, columns: str | None, label: int | None, **given: Any) -> None:
    """Draw CKA of chosen pairs of layers against the number of minibatches."""
    from flows.figures import pairs

    sources, request, look = _parse(given)
    job = request.job(*_selections(rows, columns), label=label)
    _draw(sources.place, look, lambda how: pairs.draw_convergence(sources, job, how))


@figure.command()
@click.argument("run")
@click.option(
    "--checkpoints",
    metavar="LIST",
    help="such as init,epoch-0005,final [default: up to six, denser early]",
)
@_comparing
@_looking
def stages(run: str, checkpoints: str | None, **given: Any) -> None:
    """Draw a run's final network against chosen checkpoints of it, in a grid."""
    from flows.figures import training

    names = training.parse_checkpoints(checkpoints)
    sources, request, look = _parse(given)
    _draw(sources.place, look, lambda how: training.draw_stages(sources, run, names, request, how))


@figure.command()
@click.argument("run")
@_comparing
@_looking
def animation(run: str, **given: Any) -> None:
    """Draw a run's final network against all its stored checkpoints, as a GIF or an MP4.

    Each frame has its epoch and the test accuracy in it. MP4 needs ffmpeg.
    """
    from flows.figures import training
    from flows.figures.output_files import FILMS

    sources, request, look = _parse(given)
    _draw(sources.place, look, lambda how: training.draw_film(sources, run, request, how), FILMS)


@figure.command()
@_NETWORKS
@_comparing
@_looking
def depths(networks: tuple[str, ...], **given: Any) -> None:
    """Draw networks side by side: CKA within each, below it the accuracy of linear probes.

    Kornblith et al. 2019, Figure 3; networks without probes have none drawn.
    """
    from flows.figures import networks as many

    sources, request, look = _parse(given)
    sides = _each(networks)
    _draw(sources.place, look, lambda how: many.draw_depths(sources, sides, request, how))


@figure.command()
@click.argument("pattern", metavar="PATTERN")
@_comparing
@_looking
def seeds(pattern: str, **given: Any) -> None:
    """Draw the mean of CKA over all pairs of the networks that fit, and its spread.

    Networks of one architecture, as in 'tiny-10-*@final' (Kornblith et al. 2019, Figure 2). The
    standard deviation between pairs stands beside the mean, from three networks on: two are one
    pair, which has no spread.
    """
    from flows.figures import networks as many

    sources, request, look = _parse(given)
    side = Selection.parse(pattern)
    _draw(sources.place, look, lambda how: many.draw_seeds(sources, side, request, how))


@figure.command()
@_sides
@_comparing
@_looking
def classes(rows: str, columns: str | None, **given: Any) -> None:
    """Draw one matrix a class, their mean, their spread, and CKA of all classes together.

    Kornblith et al. 2019, F.7: the mean of within-class CKA looks like CKA over all examples.
    """
    from flows.figures import networks as many

    sources, request, look = _parse(given)
    first, second = _each([rows, columns or rows])
    _draw(
        sources.place,
        look,
        lambda how: many.draw_classes(sources, first, second, request, how),
    )


@figure.command()
@click.argument("network", metavar="RUN@CHECKPOINT")
@click.option(
    "--samples",
    default=1024,
    show_default=True,
    metavar="N",
    help="the first so many examples of the sample set, at least 4",
)
@options.kernels
@_looking
def invariance(network: str, samples: int, **given: Any) -> None:
    """Draw CKA of a network with copies of it that CKA should not tell apart, and with one control.

    Neurons permuted, scaled alike, and rotated; and, as the control, an invertible transformation
    that is not orthogonal. Each with the largest deviation from the untransformed. It needs stored
    activations.
    """
    from flows.figures import networks as many

    sources, request, look = _parse({"cluster": THREADS, **given})
    (side,) = _each([network])
    place = sources.place
    _draw(place, look, lambda how: many.draw_invariance(place, side, request, samples, how))


@figure.command()
@click.argument("pattern", metavar="PATTERN")
@options.exclude
@options.giving(
    replace(each, default=(0.2, 0.4, 0.8)) if each.name == "sigma" else each
    for each in but(Method.settings(), "measure", "kernel")
)
@_SAMPLE_SET
@options.cluster
@_looking_without_layers
def layers(pattern: str, exclude: str, **given: Any) -> None:
    """Draw how often the most similar layer of another network is the corresponding one.

    By linear CKA, RBF CKA and linear HSIC, over all ordered pairs of the networks that fit. Of
    Tiny-10 trained on CIFAR-10, beside the published numbers (Kornblith et al. 2019, Table 2).
    """
    from flows.figures import networks as many

    sources, request, look = _parse(given, several=True)
    side = Selection.parse(pattern)
    without = texts.taps(exclude)
    _draw(sources.place, look, lambda how: many.draw_layers(sources, side, request, without, how))


@figure.command()
@_NETWORKS
@_looking
def probes(networks: tuple[str, ...], workspace: str, **look: Any) -> None:
    """Draw the accuracy of linear probes along the layers, a line a network."""
    from flows.figures import networks as many

    place, sides = _workspace(workspace), _each(networks)
    _draw(place, look, lambda how: many.draw_probes(place, sides, how))


def _selections(rows: str, columns: str | None) -> tuple[Selection, Selection]:
    return Selection.parse(rows), Selection.parse(columns or rows)


def _each(networks: Sequence[str]) -> list[Selection]:
    """Read names of networks; raises ConfigError for patterns."""
    sides = [Selection.parse(text) for text in networks]
    for side in sides:
        if not side.is_network or side.tap != "*":
            raise ConfigError(f"{str(side)!r} is a pattern", remedy="name one RUN@CHECKPOINT")
    return sides


def _parse(
    given: dict[str, Any], *, several: bool = False
) -> "tuple[Sources, Request, dict[str, Any]]":
    """Return what results come from, how they are compared, and what is left: the look."""
    from allcnn.cluster.cluster import Cluster
    from flows.figures.results import Request, Sources

    if several:
        given |= {"measure": Cka.name, "kernel": Rbf.name}
    methods = options.take_methods(given)
    if len(methods) > 1 and not several:
        shown = [each.kernel.title for each in methods]
        raise ConfigError(f"the kernels are {shown}", remedy="a figure shows one")
    request = Request(methods, given.pop("sample_set", None))
    some = Selection("a", "b")
    request.job(some, some)  # refuses what does not go together
    spec = given.pop("cluster")
    with Cluster(spec):
        pass  # one that cannot be is refused, also where all is stored and none is needed
    return Sources(_workspace(given.pop("workspace")), spec), request, given


def _draw(
    place: Any,
    look: dict[str, Any],
    draw: "Callable[[Any], Drawn]",
    kinds: tuple[str, ...] | None = None,
) -> None:
    """Draw a figure and write it; files that cannot be written are refused first."""
    from flows.figures.output_files import PICTURES, Targets, speaking_name
    from flows.figures.style import Look

    targets = Targets.parse(look.pop("to"), kinds or PICTURES)
    how = Look(**look)
    drawn = draw(how)
    for path in targets.write(place, drawn.picture, speaking_name(*drawn.words), how):
        click.echo(path)


def _workspace(root: str) -> Any:
    from allcnn.workspace.snapshot import Snapshot

    return Snapshot.at(root)
