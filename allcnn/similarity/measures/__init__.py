"""Measures, a file each; those named here need no module in their name."""

from allcnn.definitions.registry import Registry
from allcnn.similarity.measures.cka import Cka
from allcnn.similarity.measures.hsic import Hsic
from allcnn.similarity.measures.measure import Matrix, Measure, PairSums

__all__ = ["MEASURES", "Cka", "Hsic", "Matrix", "Measure", "PairSums"]

MEASURES: Registry[Measure] = Registry("measure", Measure, (Cka, Hsic))  # type: ignore[type-abstract]
