"""How what is stored of a network is stored again: the extraction that does it, or what else."""

from collections.abc import Iterable, Iterator
from typing import Any

from allcnn.advice import options_of, store_again
from allcnn.compare.candidates import Found, network_of
from allcnn.settings.extraction import Extraction, extracted_dtype
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from store import Grams, Representation, SampleSet


def examples_of(sample_set: SampleSet) -> dict[str, object]:
    """Return the options by which an extraction has these examples."""
    return {"split": sample_set.split, "samples": sample_set.n_samples}


def store_whole(workspace: Workspace, found: Found) -> str:
    """Say how to store the activations of a network of which some, or Grams alone, are stored."""
    network, tap = network_of(found.key), found.activations
    if tap is None:
        return store_again(workspace, network, **examples_of(found.meta.sample_set))
    return store_again(workspace, network, **options_of(extraction_of(network, tap)))


def as_stored(network: Selection, taps: Iterable[Found]) -> Iterator[Extraction]:
    """Yield the extractions that store a network as it is stored, activations before Grams."""
    for found in taps:
        if found.activations is not None:
            yield extraction_of(network, found.activations)
    for found in taps:
        yield from (extraction_of(network, grams) for grams in found.grams)


def extraction_of(network: Selection, one: Representation | Grams) -> Extraction:
    """Return the extraction that stores activations, or Grams, as they are stored."""
    how: dict[str, Any]
    if isinstance(one, Grams):
        how = {"keep": ("grams",), "kernel": one.key.kernel, "pool": one.key.pool}
        how["batch_size"] = one.key.batch_size
    else:
        how = {"compression": one.compression, "batch_size": one.meta.batch_rows}
    how["dtype"] = extracted_dtype(one.meta.dtype)
    of = one.meta.sample_set
    where = network.run, network.checkpoint
    return Extraction(*where, split=of.split, n_samples=of.n_samples, **how)
