"""Settings of extractions."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from allcnn.definitions import bounds
from allcnn.definitions.fields import NAME, check_settings, setting
from allcnn.similarity.kernels import KERNELS
from allcnn.similarity.method import MINIBATCH_HELP, POOL_HELP, Pool

DType = Literal["float32", "float16"]
"""Extraction computes in float32, and keeps one of these."""

StoredDType = Literal["float64", "float32", "float16"]
"""Activations of other programs may need float64."""

Keep = Literal["activations", "grams"]
Compression = Literal["none", "zstd"]

DEFAULT_SAMPLES: Final = 2048
"""Examples that are extracted where nothing else is asked for."""


def extracted_dtype(stored: StoredDType) -> DType:
    """Return the dtype in which extraction computes what is stored."""
    return "float16" if stored == "float16" else "float32"


@dataclass(frozen=True)
class Extraction:
    """What to extract of a run's checkpoint, and how."""

    run: str = setting(help="name of a run in the workspace", pattern=NAME)
    checkpoint: str = setting(
        "final", "init, epoch-0005, …, final, or all", pattern=NAME, metavar="NAME"
    )
    split: str = setting("test", "part of the data set that is shown to the network", names="split")
    n_samples: int | None = setting(
        None,
        f"examples, at least 4 [default: {DEFAULT_SAMPLES}, or all of a smaller split]",
        bounds.SAMPLES,
        option="samples",
    )
    batch_size: int = setting(256, MINIBATCH_HELP, bounds.MINIBATCH)
    dtype: DType = setting("float32", "of the stored activations", choices=get_args(DType))
    keep: tuple[Keep, ...] = setting(
        ("activations",),
        "activations, grams, or activations,grams",
        choices=get_args(Keep),
        metavar="WHAT",
    )
    kernel: str = setting(
        "linear", "of kept Grams; rbf keeps linear ones, which serve both", metavar="NAME"
    )
    pool: Pool = setting("whole", POOL_HELP, choices=get_args(Pool))
    compression: Compression = setting(
        "none",
        "of the stored activations; zstd takes less room and more time",
        choices=get_args(Compression),
    )

    def __post_init__(self) -> None:
        check_settings(self)
        KERNELS.find(self.kernel)
