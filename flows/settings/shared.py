"""The flows, and settings of commands and flows that belong to no dataclass."""

from dataclasses import replace
from typing import Final

from allcnn.commands import DEFAULT_ROOT
from allcnn.definitions.fields import Setting, only
from allcnn.settings.extraction import Extraction
from allcnn.settings.run import RunConfig

FLOWS: Final = ("train", "extract", "compare", "matrix", "probe", "pipeline", "report", "nightly")
"""Names of flows: of the module, of the function in it, and of the deployment."""

WORKSPACE: Final = Setting(
    "workspace",
    DEFAULT_ROOT,
    "folder or address (s3://...) of runs, stores, results and figures",
    metavar="FOLDER",
)
PRESET: Final = Setting(
    "preset",
    None,
    "a published network with its recipe of 350 epochs of CIFAR-10: d1-v2, plain-18, tiny-10,"
    " width-64",
    names="preset",
)
ERRORS: Final = Setting("errors", False, "show standard errors (jackknife over minibatches)")

MINIBATCH: Final = replace(*only(Extraction, "batch_size"), name="minibatch")
"""Beside the minibatches of training."""

_DEPTH, _SEED = only(RunConfig.settings(), "depth", "seed")
DEPTHS: Final = replace(
    _DEPTH, name="depths", default=(1, 2), help="depths of the networks", option="depth"
)
SEEDS: Final = replace(_SEED, name="seeds", default=(0, 1), help="seeds of the networks")
