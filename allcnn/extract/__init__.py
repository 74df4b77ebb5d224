"""Extract: load a checkpoint and examples, and give every minibatch of rows to the sinks."""

from typing import TYPE_CHECKING

from store.lazy import lazy

if TYPE_CHECKING:
    from allcnn.extract.forward import LoadedNetwork as LoadedNetwork
    from allcnn.extract.forward import Samples as Samples
    from allcnn.extract.stream import each_checkpoint as each_checkpoint
    from allcnn.extract.stream import extract as extract
    from allcnn.extract.stream import keep as keep
    from allcnn.extract.stream import load_samples as load_samples
    from allcnn.extract.stream import load_source as load_source

__getattr__, __all__ = lazy(__name__, __file__)
