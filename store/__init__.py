"""Data at rest: activations, their Grams, similarity results and probes in Zarr.

Knows NumPy and Zarr alone, so that stores can be written and read without JAX, Dask or Prefect.
"""

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
from store.foreign import digest
from store.grams import Grams, GramStore, GramWriter, open_grams
from store.importing import write_network
from store.layout import has_store
from store.network import NetworkWriter
from store.probes import ProbeResult, has_probe, list_probes, read_probe, write_probe
from store.reader import Representation, Store, Summary, open
from store.results import SimilarityResult, has_result, list_results, read_result, write_result
from store.samples import Examples
from store.schema import (
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
from store.selection import Selection
from store.triangles import pack, unpack
from store.writer import Compression, Writer

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
