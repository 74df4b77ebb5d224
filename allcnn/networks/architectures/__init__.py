"""Architectures, a file each; those named here need no module in their name."""

from allcnn.definitions.registry import Registry
from allcnn.networks.architectures.all_cnn_c import AllCnnC
from allcnn.networks.architectures.base import Architecture
from allcnn.networks.architectures.plain import Plain
from allcnn.networks.architectures.tiny_10 import Tiny10
from allcnn.networks.architectures.width_n import WidthN

__all__ = ["ARCHITECTURES", "AllCnnC", "Architecture", "Plain", "Tiny10", "WidthN"]

ARCHITECTURES: Registry[Architecture] = Registry(
    "architecture",
    Architecture,  # type: ignore[type-abstract]
    (AllCnnC, Plain, Tiny10, WidthN),
)
