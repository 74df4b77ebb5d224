"""Kernels, a file each; those named here need no module in their name."""

from allcnn.definitions.registry import Registry
from allcnn.similarity.kernels.cosine import Cosine
from allcnn.similarity.kernels.kernel import BaseKernel, Kernel, Pairs
from allcnn.similarity.kernels.linear import Linear
from allcnn.similarity.kernels.rbf import Rbf

__all__ = ["KERNELS", "BaseKernel", "Cosine", "Kernel", "Linear", "Pairs", "Rbf", "served_by"]

KERNELS: Registry[Kernel] = Registry("kernel", Kernel, (Linear, Rbf, Cosine))  # type: ignore[type-abstract]


def served_by(base: str) -> str:
    """Return in words which of these kernels are derived from Grams of a base kernel."""
    names = [name for name in KERNELS.names if KERNELS.find(name).base == base]
    return " and ".join(names)
