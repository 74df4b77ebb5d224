"""Data at rest: activations, their Grams, similarity results and probes in Zarr.

Knows NumPy and Zarr alone, so that stores can be written and read without JAX, Dask or Prefect.
Names are imported when they are asked for, so that a command that needs few of them starts fast.
"""

from typing import TYPE_CHECKING

from store.lazy import lazy

if TYPE_CHECKING:
    from store.arrays.grams import Grams, GramStore, GramWriter, open_grams
    from store.arrays.reader import Representation, Store, Summary, open
    from store.arrays.selection import Selection
    from store.arrays.writer import Compression, Writer
    from store.errors import (
        ActivationOverflowError,
        ArrayError,
        ClaimedError,
        ConflictError,
        DamagedChunkError,
        InvalidKeyError,
        MisalignedWriteError,
        PackingError,
        PrecisionError,
        QueryError,
        RowRangeError,
        SchemaError,
        StoreError,
        StoreLocationError,
        UnfinishedError,
        UnknownGramsError,
        UnknownProbeError,
        UnknownRepresentationError,
        UnknownResultError,
    )
    from store.ingest.import_arrays import write_network
    from store.ingest.network_writer import NetworkWriter
    from store.model.array_interop import digest
    from store.model.examples import Examples
    from store.model.schema import (
        SCHEMA_VERSION,
        Attributes,
        Commit,
        DType,
        GramKey,
        GramMeta,
        RepresentationKey,
        RepresentationMeta,
        SampleSet,
    )
    from store.model.triangles import pack, unpack
    from store.records.probes import ProbeResult, has_probe, list_probes, read_probe, write_probe
    from store.records.results import (
        SimilarityResult,
        has_result,
        list_results,
        read_result,
        write_result,
    )
    from store.zarrfiles.layout import has_store

__all__ = [
    "SCHEMA_VERSION",
    "ActivationOverflowError",
    "ArrayError",
    "Attributes",
    "ClaimedError",
    "Commit",
    "Compression",
    "ConflictError",
    "DType",
    "DamagedChunkError",
    "Examples",
    "GramKey",
    "GramMeta",
    "GramStore",
    "GramWriter",
    "Grams",
    "InvalidKeyError",
    "MisalignedWriteError",
    "NetworkWriter",
    "PackingError",
    "PrecisionError",
    "ProbeResult",
    "QueryError",
    "Representation",
    "RepresentationKey",
    "RepresentationMeta",
    "RowRangeError",
    "SampleSet",
    "SchemaError",
    "Selection",
    "SimilarityResult",
    "Store",
    "StoreError",
    "StoreLocationError",
    "Summary",
    "UnfinishedError",
    "UnknownGramsError",
    "UnknownProbeError",
    "UnknownRepresentationError",
    "UnknownResultError",
    "Writer",
    "digest",
    "has_probe",
    "has_result",
    "has_store",
    "list_probes",
    "list_results",
    "open",
    "open_grams",
    "pack",
    "read_probe",
    "read_result",
    "unpack",
    "write_network",
    "write_probe",
    "write_result",
]

_HOMES = {
    "store.arrays.grams": ("Grams", "GramStore", "GramWriter", "open_grams"),
    "store.arrays.reader": ("Representation", "Store", "Summary", "open"),
    "store.arrays.selection": ("Selection",),
    "store.arrays.writer": ("Compression", "Writer"),
    "store.errors": (
        "ActivationOverflowError",
        "ArrayError",
        "ClaimedError",
        "ConflictError",
        "DamagedChunkError",
        "InvalidKeyError",
        "MisalignedWriteError",
        "PackingError",
        "PrecisionError",
        "QueryError",
        "RowRangeError",
        "SchemaError",
        "StoreError",
        "StoreLocationError",
        "UnfinishedError",
        "UnknownGramsError",
        "UnknownProbeError",
        "UnknownRepresentationError",
        "UnknownResultError",
    ),
    "store.ingest.import_arrays": ("write_network",),
    "store.ingest.network_writer": ("NetworkWriter",),
    "store.model.array_interop": ("digest",),
    "store.model.examples": ("Examples",),
    "store.model.schema": (
        "SCHEMA_VERSION",
        "Attributes",
        "Commit",
        "DType",
        "GramKey",
        "GramMeta",
        "RepresentationKey",
        "RepresentationMeta",
        "SampleSet",
    ),
    "store.model.triangles": ("pack", "unpack"),
    "store.records.probes": (
        "ProbeResult",
        "has_probe",
        "list_probes",
        "read_probe",
        "write_probe",
    ),
    "store.records.results": (
        "SimilarityResult",
        "has_result",
        "list_results",
        "read_result",
        "write_result",
    ),
    "store.zarrfiles.layout": ("has_store",),
}

__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
