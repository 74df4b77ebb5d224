"""Extract: load a checkpoint and examples, and give every minibatch of rows to the sinks."""

from allcnn.extract.forward import Samples, Source
from allcnn.extract.stream import each_checkpoint, extract, keep, load_samples, load_source

__all__ = [
    "Samples",
    "Source",
    "each_checkpoint",
    "extract",
    "keep",
    "load_samples",
    "load_source",
]
