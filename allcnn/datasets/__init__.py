"""Data sets that TFDS prepares with these builders, without TensorFlow.

The official builders of the same names import TensorFlow to unpack and encode; what these write,
the official ones read.
"""

from allcnn.datasets.builder import Builder
from allcnn.datasets.cifar import Cifar10, Cifar100
from allcnn.datasets.digits import Digits
from allcnn.datasets.fashion_mnist import FashionMnist

BUILDERS: dict[str, type[Builder]] = {
    builder.name: builder for builder in (Cifar10, Cifar100, Digits, FashionMnist)
}
"""The builders by the name of their data set."""

__all__ = ["BUILDERS", "Builder", "Cifar10", "Cifar100", "Digits", "FashionMnist"]
