"""Data at rest: activation stores and similarity results in Zarr.

Knows NumPy and Zarr alone, so that stores can be written and read without JAX, Dask or Prefect.
"""

from store.errors import (
    ActivationOverflowError,
    ConflictError,
    DamagedChunkError,
    InvalidKeyError,
    MisalignedWriteError,
    RowRangeError,
    SchemaError,
    StoreError,
    StoreLocationError,
    UnfinishedError,
    UnknownRepresentationError,
    UnknownResultError,
)
from store.reader import Representation, Store, Summary, open
from store.results import SimilarityResult, has_result, list_results, read_result, write_result
from store.schema import (
    SCHEMA_VERSION,
    Commit,
    RepresentationKey,
    RepresentationMeta,
    SampleSet,
)
from store.writer import Writer

__all__ = [
    "SCHEMA_VERSION",
    "ActivationOverflowError",
    "Commit",
    "ConflictError",
    "DamagedChunkError",
    "InvalidKeyError",
    "MisalignedWriteError",
    "Representation",
    "RepresentationKey",
    "RepresentationMeta",
    "RowRangeError",
    "SampleSet",
    "SchemaError",
    "SimilarityResult",
    "Store",
    "StoreError",
    "StoreLocationError",
    "Summary",
    "UnfinishedError",
    "UnknownRepresentationError",
    "UnknownResultError",
    "Writer",
    "has_result",
    "list_results",
    "open",
    "read_result",
    "write_result",
]
