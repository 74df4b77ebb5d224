"""Measures, a file each; those named here need no module in their name."""

from allcnn.definitions.registry import Registry
from allcnn.similarity.measures.cka import Cka
from allcnn.similarity.measures.hsic import Hsic
from allcnn.similarity.measures.measure import Measure, PairSums

__all__ = ["MEASURES", "Cka", "Hsic", "Measure", "PairSums"]

MEASURES: Registry[Measure] = Registry("measure", Measure, (Cka, Hsic))  # type: ignore[type-abstract]
