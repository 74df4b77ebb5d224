"""Data at rest: activations, their Grams, similarity results and probes in Zarr.

Knows NumPy and Zarr alone, so that stores can be written and read without JAX, Dask or Prefect.
Names are imported when they are asked for, so that a command that needs few of them starts fast.
"""

from typing import TYPE_CHECKING

from store.lazy import lazy

if TYPE_CHECKING:
    from store.arrays.grams import Grams as Grams
    from store.arrays.grams import GramStore as GramStore
    from store.arrays.grams import GramWriter as GramWriter
    from store.arrays.grams import open_grams as open_grams
    from store.arrays.reader import Representation as Representation
    from store.arrays.reader import Store as Store
    from store.arrays.reader import Summary as Summary
    from store.arrays.reader import open as open
    from store.arrays.selection import TapSelection as TapSelection
    from store.arrays.writer import Compression as Compression
    from store.arrays.writer import Writer as Writer
    from store.errors import ActivationOverflowError as ActivationOverflowError
    from store.errors import ArrayError as ArrayError
    from store.errors import ClaimedError as ClaimedError
    from store.errors import ConflictError as ConflictError
    from store.errors import DamagedChunkError as DamagedChunkError
    from store.errors import InvalidKeyError as InvalidKeyError
    from store.errors import MisalignedWriteError as MisalignedWriteError
    from store.errors import PackingError as PackingError
    from store.errors import PrecisionError as PrecisionError
    from store.errors import QueryError as QueryError
    from store.errors import RowRangeError as RowRangeError
    from store.errors import SchemaError as SchemaError
    from store.errors import StoreError as StoreError
    from store.errors import StoreLocationError as StoreLocationError
    from store.errors import UnfinishedError as UnfinishedError
    from store.errors import UnknownGramsError as UnknownGramsError
    from store.errors import UnknownProbeError as UnknownProbeError
    from store.errors import UnknownRepresentationError as UnknownRepresentationError
    from store.errors import UnknownResultError as UnknownResultError
    from store.ingest.import_arrays import write_network as write_network
    from store.ingest.network_writer import NetworkWriter as NetworkWriter
    from store.model.array_interop import digest as digest
    from store.model.examples import Examples as Examples
    from store.model.schema import SCHEMA_VERSION as SCHEMA_VERSION
    from store.model.schema import Attributes as Attributes
    from store.model.schema import Commit as Commit
    from store.model.schema import DType as DType
    from store.model.schema import GramKey as GramKey
    from store.model.schema import GramMeta as GramMeta
    from store.model.schema import RepresentationKey as RepresentationKey
    from store.model.schema import RepresentationMeta as RepresentationMeta
    from store.model.schema import SampleSet as SampleSet
    from store.model.triangles import pack as pack
    from store.model.triangles import unpack as unpack
    from store.records.probes import ProbeResult as ProbeResult
    from store.records.probes import has_probe as has_probe
    from store.records.probes import list_probes as list_probes
    from store.records.probes import read_probe as read_probe
    from store.records.probes import write_probe as write_probe
    from store.records.results import SimilarityResult as SimilarityResult
    from store.records.results import has_result as has_result
    from store.records.results import list_results as list_results
    from store.records.results import read_result as read_result
    from store.records.results import write_result as write_result
    from store.zarrfiles.layout import has_store as has_store

__getattr__, __all__ = lazy(__name__, __file__)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
