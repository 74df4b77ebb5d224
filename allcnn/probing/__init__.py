"""The bridge from stored activations to linear probes, one result a network.

Taps are probed one after the other, from examples that are read a minibatch at a time, every digest
verified. What was probed before, from the same activations in the same way, is read instead.
"""

from typing import TYPE_CHECKING

from store.lazy import lazy

if TYPE_CHECKING:
    from allcnn.probing.fit import probe

__all__ = ["probe"]

__getattr__ = lazy(
    __name__,
    {
        "allcnn.probing.fit": ("probe",),
    },
)
