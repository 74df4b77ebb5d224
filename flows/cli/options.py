"""Options of the command line; their help lines also describe the parameters of the flows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from allcnn import bounds
from allcnn.cluster.spec import THREADS
from allcnn.commands import DEFAULT_ROOT
from allcnn.config import (
    DEFAULT_SAMPLES,
    Architecture,
    Comparison,
    Compression,
    DType,
    Estimator,
    Extraction,
    Kernel,
    Pool,
    Precision,
    RunConfig,
    Selection,
    StoredDType,
    Unusable,
    Variant,
)
from allcnn.errors import ConfigError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

HELP = {
    "workspace": "folder or address (s3://...) of runs, stores, results and figures",
    "dataset": "digits, cifar10, cifar100, fashion_mnist, or a data set prepared in TFDS_DATA_DIR",
    "image_size": f"side of the images in pixels, {bounds.IMAGE_SIZE}; 0 for 16 of digits, 32 of"
    " others",
    "preset": "a published network with its recipe of 350 epochs of CIFAR-10: d1-v2, plain-18,"
    " tiny-10, width-64",
    "architecture": "all-cnn-c, or plain, tiny, width of Kornblith et al. (2019)",
    "channels": "n of the architecture width: channels of each layer",
    "precision": "of training's convolutions; parameters and evaluation are float32",
    "depth": f"n, which gives the network 7n + 3 taps, {bounds.DEPTH}",
    "depths": "depths of the networks: numbers and ranges, such as 1,2 or 1-4",
    "variant": "v1 with dropout, v2 without",
    "width": f"factor on the published 96 and 192 channels, {bounds.WIDTH}",
    "seed": "of initialisation, order, augmentation and dropout",
    "seeds": "seeds of the networks: numbers and ranges, such as 0,1 or 0-9",
    "epochs": "passes over the training images; the schedule scales with them",
    "checkpoint_every": "epochs between checkpoints; 0 for 5, or for 1 of fewer than 10 epochs",
    "batch_size": "images a training step, at least 4",
    "learning_rate": "at the start, above 0",
    "weight_decay": "factor of the L2 term's gradient, 0 or more",
    "prefix": "beginning of the runs' names",
    "checkpoint": "init, epoch-0005, …, final, or all",
    "split": "part of the data set that is shown to the network",
    "n_samples": f"examples, at least 4 [default: {DEFAULT_SAMPLES}, or all of a smaller split]",
    "minibatch": "examples a minibatch of the store and of HSIC, at least 4",
    "dtype": "of the stored activations",
    "stored_dtype": "of the stored activations; float64 for features whose mean is far from zero",
    "compression": "of the stored activations; zstd takes less room and more time",
    "kernel": "of the Gram matrices",
    "sigma": "RBF bandwidths, as fractions of the median distance, such as 0.2,0.4,0.8",
    "sigmas": "RBF bandwidths, as fractions of the median distance between examples",
    "estimator": "of HSIC: unbiased or biased, summed over minibatches; exact, of all examples",
    "pool": "mean: average convolutional taps over space first",
    "sample_set": "name of a stored sample set [default: the largest that both sides have,"
    " rather of test than of training examples]",
    "label": "compare the examples of this class alone",
    "label_or_each": "compare the examples of this class alone, or of each class, a matrix each",
    "cluster": "where tasks run: threads, local[:WORKERS] on a core each, gpu, tls:// or"
    " tcp://HOST:PORT of a scheduler, or MODULE:FUNCTION that starts one",
    "pattern": "RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...], as in *@final:conv[1-9];"
    " TAP is all that follows the colon, and may be a tap's name, whatever characters it has",
    "networks": "checkpoints that are stored: RUN@CHECKPOINT with *, ? and [...]; what is stored of"
    " others is renewed, too, where their checkpoint has become another one",
    "matrices": "all-pairs matrices that are kept up to date, besides all results that are there:"
    " patterns as in *@final:conv[1-9]",
    "share": "of what is stored, verified in one night; above 0 and at most 1",
    "repair": "compute again what is found damaged, where its checkpoint still exists",
    "busy": "while another night is at work: step-aside, or wait",
    "each_label": "compare the examples of every class, a matrix each",
    "permutations": "match examples at random so many times, for a baseline",
    "unusable": "networks that cannot be compared, being unfinished, kept in another way, or left"
    " of an earlier run of the same name: refuse, or skip them",
    "keep": "activations, grams, or activations,grams",
    "gram_kernel": "of kept Grams; rbf keeps linear ones, which serve both",
    "train_set": "stored sample set that is trained on [default: the largest of the split train]",
    "test_set": "stored sample set that is classified [default: the largest of the split test]",
    "penalties": "factors of the l2 term, of which one is chosen for each tap by a fifth of the"
    " training examples [default: 0.1 to 1e-6, two a decade]",
    "errors": "show standard errors (jackknife over minibatches)",
    "convergence": "draw CKA against the number of minibatches",
    "exclude": "taps that are left out, separated by commas",
    "json_path": "file to write the numbers to",
}
"""What each setting is, with its unit and bounds."""


def option(flag: str, default: Any = None, *, topic: str | None = None, **kwargs: Any) -> Decorator:
    """Return a click option with the help line of its topic, by default that of its flag."""
    name = flag.removeprefix("--").replace("-", "_")
    shown = default is not None
    return click.option(
        flag, name, default=default, show_default=shown, help=HELP[topic or name], **kwargs
    )


def _note_root(context: click.Context, _: click.Parameter, root: str) -> str:
    context.meta[ROOT] = root
    return root


ROOT = "allcnn.workspace.paths"
"""Where a command's context keeps its workspace, for what is advised when it fails."""

workspace = option("--workspace", DEFAULT_ROOT, metavar="FOLDER", callback=_note_root)

_TRAINING = [
    option("--dataset", RunConfig.dataset, metavar="NAME"),
    option("--image-size", RunConfig.image_size, metavar="PIXELS"),
    option("--architecture", RunConfig.architecture, type=click.Choice(get_args(Architecture))),
    option("--channels", RunConfig.channels, metavar="N"),
    option("--variant", RunConfig.variant, type=click.Choice(get_args(Variant))),
    option("--width", RunConfig.width, metavar="FACTOR"),
    option("--epochs", RunConfig.epochs, metavar="N"),
    option("--checkpoint-every", RunConfig.checkpoint_every, metavar="EPOCHS"),
    option("--batch-size", RunConfig.batch_size, metavar="IMAGES"),
    option("--learning-rate", RunConfig.learning_rate, metavar="RATE"),
    option("--weight-decay", RunConfig.weight_decay, metavar="FACTOR"),
    option("--precision", RunConfig.precision, type=click.Choice(get_args(Precision))),
    option("--prefix", RunConfig.prefix, metavar="NAME"),
]

pool = option("--pool", Comparison.pool, type=click.Choice(get_args(Pool)))
json_file: Decorator = click.option(
    "--json", "json_path", type=click.Path(dir_okay=False), help=HELP["json_path"]
)

_KERNELS = [
    option("--kernel", Comparison.kernel, type=click.Choice(get_args(Kernel))),
    option("--sigma", ",".join(map(str, Comparison.sigmas)), metavar="LIST"),
    option("--estimator", Comparison.estimator, type=click.Choice(get_args(Estimator))),
    pool,
]

_CHOOSING: list[Decorator] = [
    option("--batch-size", Comparison.batch_size, topic="minibatch", metavar="N"),
    option("--sample-set", metavar="NAME"),
    option("--label", type=int, metavar="N"),
    click.option("--each-label", is_flag=True, help=HELP["each_label"]),
    option("--permutations", Comparison.permutations, metavar="N"),
    option("--unusable", Comparison.unusable, type=click.Choice(get_args(Unusable))),
]

_SHOWING: list[Decorator] = [
    click.option("--errors", is_flag=True, help=HELP["errors"]),
    click.option("--convergence", is_flag=True, help=HELP["convergence"]),
    json_file,
]

samples = option("--samples", type=int, topic="n_samples", metavar="N")
cluster = option("--cluster", str(THREADS), metavar="WHERE")
dtype = option("--dtype", Extraction.dtype, type=click.Choice(get_args(DType)))
stored_dtype = option(
    "--dtype", Extraction.dtype, topic="stored_dtype", type=click.Choice(get_args(StoredDType))
)
compression = option(
    "--compression", Extraction.compression, type=click.Choice(get_args(Compression))
)


def training(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the settings of a run, but for depth and seed."""
    return _stack(_TRAINING, command)


def kernels(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the kernel, the estimator and the pooling."""
    return _stack(_KERNELS, command)


def comparing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all that decides the numbers of a comparison, and where they are computed."""
    return _stack([*_KERNELS, *_CHOOSING, cluster], command)


def showing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what is shown of a comparison, and where it is written."""
    return _stack(_SHOWING, command)


def local_file(text: str) -> Path:
    """Return the path of a file; raises ConfigError for an address, which would be mangled."""
    if "://" in text:
        raise ConfigError(f"{text} is an address; give a local file")
    return Path(text)


def taps(text: str) -> list[str]:
    """Read names of taps, separated by commas; the whole text may be a name with commas, too."""
    return [text, *(name.strip() for name in text.split(","))]


def networks(text: str) -> Selection:
    """Read a pattern where a run alone, or a pattern of runs, stands for all its checkpoints."""
    return Selection.parse(text if set("@:") & set(text) or not text else f"{text}@*")


def _stack(decorators: list[Decorator], command: Callable[..., Any]) -> Callable[..., Any]:
    for decorator in reversed(decorators):
        command = decorator(command)
    return command
