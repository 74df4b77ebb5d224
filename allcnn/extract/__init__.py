"""Extract: load a checkpoint and examples, and give every minibatch of rows to the sinks."""

from typing import TYPE_CHECKING

from store.lazy import lazy

if TYPE_CHECKING:
    from allcnn.extract.forward import LoadedNetwork, Samples
    from allcnn.extract.stream import each_checkpoint, extract, keep, load_samples, load_source

__all__ = [
    "LoadedNetwork",
    "Samples",
    "each_checkpoint",
    "extract",
    "keep",
    "load_samples",
    "load_source",
]

__getattr__ = lazy(
    __name__,
    {
        "allcnn.extract.forward": "Samples LoadedNetwork",
        "allcnn.extract.stream": "each_checkpoint extract keep load_samples load_source",
    },
)
