"""Keys, sample sets, metadata and commit records, as stored beside the arrays; all validated."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np

from store.errors import InvalidKeyError, SchemaError
from store.model.field_checks import (
    check_attributes,
    check_choice,
    check_count,
    check_ranges,
    check_shape,
    check_text,
    check_utc,
    shown,
)
from store.model.names import check_component, check_tap, tap_folder
from store.model.triangles import triangle_size

SCHEMA_VERSION = 4
"""Version of everything below a store's root; raised when an older reader would misread it.

Version 1 had no attributes of representations, no seals, and no compression; version 2 no names of
taps but those that are folders' names, no float64, and no bounds of errors; version 3 results of
CKA alone.
"""

GRAM_CHUNK_BYTES = 2**20
"""About the size of a chunk of Grams; part of the format, since commits go by whole chunks."""

DType = Literal["float64", "float32", "float16"]
Precision = Literal["float32", "float64"]
Kernel = Literal["linear", "cosine"]
Pool = Literal["whole", "mean"]
Attributes = Mapping[str, str | int | float | bool]
Parsers = Mapping[str, Callable[[Any], Any]]

Span = tuple[int, int]
"""A range of the first axis: the first row, or minibatch of Grams, and the one after the last."""

_SHA256 = re.compile(r"sha256:([0-9a-f]{12})[0-9a-f]*")
_CRC32C = re.compile(r"crc32c:[0-9a-f]{8}")
_RUN_1 = re.compile(r".+-d(\d{1,9})-(v[12])-s(\d{1,9})")
_EPOCH_1 = re.compile(r"init|epoch-(\d{4,9})")
"""Names that held facts in stores of version 1."""


@dataclass(frozen=True)
class _Stored:
    """Stored as a JSON object of its fields."""

    _parsers: ClassVar[Parsers] = {}

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {each.name: as_json(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Rebuild it from JSON values; raises SchemaError for others."""
        wanted = [each.name for each in fields(cls)]
        # Fields that newer versions added have defaults.
        required = {f.name for f in fields(cls) if f.default is f.default_factory is MISSING}
        if not isinstance(values, Mapping) or not required <= {*values} <= {*wanted}:
            found = ", ".join(map(str, values)) if isinstance(values, Mapping) else shown(values)
            raise SchemaError(
                f"stored {cls.__name__}",
                f"is malformed: it has {found}",
                f"want the fields {', '.join(wanted)}",
                "write it again",
            )
        parsed = {name: _as_tuple(value) for name, value in values.items()}
        try:
            for name, parse in cls._parsers.items():
                parsed[name] = parse(parsed[name])
            if "attributes" in {*wanted} - {*parsed}:
                parsed["attributes"] = _attributes_by_name(parsed["key"])
            return cls(**parsed)
        except InvalidKeyError as error:
            raise SchemaError(f"the stored metadata are malformed: {error}") from error


def as_json(value: Any) -> Any:
    """Return keys as their texts, metadata as objects, tuples as lists."""
    if isinstance(value, _Stored):
        return value.to_json()
    if isinstance(value, RepresentationKey):
        return value.text
    if isinstance(value, list | tuple):
        return list(map(as_json, value))
    return dict(value) if isinstance(value, Mapping) else value


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class SampleSet(_Stored):
    """An ordered list of examples; only representations of the same one may be compared.

    Attributes:
        dataset: name of the data set.
        split: its part, such as ``test``.
        n_samples: number of examples.
        image_shape: shape of one example before the network, such as (32, 32, 3).
        digest: of the examples in their order; its first 8 characters are part of the name.
    """

    dataset: str
    split: str
    n_samples: int
    image_shape: tuple[int, ...]
    digest: str

    def __post_init__(self) -> None:
        check_component("data set", self.dataset)
        check_component("split", self.split)
        check_count("n_samples", self.n_samples)
        check_shape("image_shape", self.image_shape)
        if not isinstance(self.digest, str) or len(self.digest) < 8:
            raise SchemaError("digest", f"is {self.digest!r}", "want at least 8 characters")
        check_component("sample set", self.name)

    @property
    def name(self) -> str:
        """The folder's name, such as ``cifar10-test-10000-0a1b2c3d``."""
        return f"{self.dataset}-{self.split}-{self.n_samples}-{self.digest[:8]}"


@dataclass(frozen=True, order=True)
class RepresentationKey:
    """Where one tap of one checkpoint of one run on one sample set is stored."""

    sample_set: str
    run: str
    checkpoint: str
    tap: str

    def __post_init__(self) -> None:
        check_component("sample set", self.sample_set)
        check_component("run", self.run)
        check_component("checkpoint", self.checkpoint)
        check_tap(self.tap)

    @property
    def path(self) -> str:
        """Path of the group below the store's root, whose last folder stands for the tap."""
        return f"{self.sample_set}/{self.run}/{self.checkpoint}/{tap_folder(self.tap)}"

    @property
    def text(self) -> str:
        """The names, joined by ``/``, as JSON has them; those before the tap's have none."""
        return f"{self.sample_set}/{self.run}/{self.checkpoint}/{self.tap}"

    @property
    def title(self) -> str:
        """The words for it in an error."""
        return f"tap {self.tap} of run {self.run}, checkpoint {self.checkpoint}"

    def __str__(self) -> str:
        return f"{self.run}@{self.checkpoint}:{self.tap}"

    @classmethod
    def from_text(cls, text: object) -> Self:
        """Rebuild a key from its text; raises SchemaError for what is not one."""
        parts = text.split("/", 3) if isinstance(text, str) else []
        try:
            return cls(*parts)
        except (InvalidKeyError, TypeError) as error:
            raise SchemaError(
                f"{text!r}",
                "is not the key of a representation",
                "want 'sample set/run/checkpoint/tap'",
                "the store is malformed, write it again",
            ) from error


class Meta(_Stored, ABC):
    """Metadata of activations and of Grams: what they have in common."""

    # Declared as dataclass fields by each kind, in the order in which stores have them.
    key: "RepresentationKey | GramKey"
    sample_set: SampleSet
    tap_index: int
    created_by: str
    created_at: str
    attributes: Attributes
    n_taps: int | None

    def _check_common(self) -> None:
        check_count("tap_index", self.tap_index, least=0)
        if self.n_taps is not None:
            check_count("n_taps", self.n_taps, least=self.tap_index + 1)
        check_text("created_by", self.created_by)
        check_utc("created_at", self.created_at)
        object.__setattr__(self, "attributes", _as_python(self.attributes))
        check_attributes(self.attributes)
        if self.key.sample_set != self.sample_set.name:
            raise SchemaError(
                f"the key {self.key.text}",
                f"names another sample set than {self.sample_set.name}",
                remedy="build the key from the sample set's name",
            )

    @property
    def of(self) -> RepresentationKey:
        """The representation that these are the activations or the Grams of."""
        return self.key.of if isinstance(self.key, GramKey) else self.key

    @property
    def n_samples(self) -> int:
        """Number of examples."""
        return self.sample_set.n_samples

    @property
    @abstractmethod
    def length(self) -> int:
        """Length of the finished array along its first axis: rows, or minibatches of Grams."""

    @property
    @abstractmethod
    def block_length(self) -> int:
        """Rows, or minibatches of Grams, that are written and committed at once."""

    @property
    def n_blocks(self) -> int:
        """Blocks in which the array is written."""
        return -(-self.length // self.block_length)

    def block(self, index: int) -> Span:
        """Return where a block begins on the first axis, and where the next one would."""
        start = index * self.block_length
        return start, min(start + self.block_length, self.length)


@dataclass(frozen=True)
class RepresentationMeta(Meta):
    """Metadata of activations: who made them, from which checkpoint, over which examples.

    Attributes:
        key: where it is stored.
        sample_set: the examples, in the order of the rows.
        checkpoint_digest: of the parameters and batch statistics.
        tap_index: position of the tap in its network, from 0.
        shape: of one example's activations: (h, w, c), (position, c) or (c,).
        dtype: as stored, ``float64``, ``float32`` or ``float16``.
        batch_rows: rows of a minibatch; the last one may have fewer.
        created_by: program and version.
        created_at: ISO 8601 in UTC, such as ``2026-01-31T12:00:00+00:00``.
        attributes: facts about the network to find it by, such as ``{"depth": 1, "epoch": 5}``.
        n_taps: of the network, as far as its writer knew; the loss of a whole tap shows by it.
    """

    _parsers: ClassVar[Parsers] = {
        "key": RepresentationKey.from_text,
        "sample_set": SampleSet.from_json,
    }

    key: RepresentationKey
    sample_set: SampleSet
    checkpoint_digest: str
    tap_index: int
    shape: tuple[int, ...]
    dtype: DType
    batch_rows: int
    created_by: str
    created_at: str
    attributes: Attributes = field(default_factory=dict, hash=False)
    n_taps: int | None = None

    def __post_init__(self) -> None:
        check_text("checkpoint_digest", self.checkpoint_digest)
        check_shape("shape", self.shape)
        if not 1 <= len(self.shape) <= 3:
            raise SchemaError(f"shape {self.shape}", f"has {len(self.shape)} axes", "use 1 to 3")
        check_choice("dtype", self.dtype, *get_args(DType))
        check_count("batch_rows", self.batch_rows)
        self._check_common()

    @property
    def length(self) -> int:
        """Rows."""
        return self.n_samples

    @property
    def block_length(self) -> int:
        """Rows of a minibatch."""
        return self.batch_rows


@dataclass(frozen=True, order=True)
class GramKey(_Stored):
    """Where the Grams of one representation are stored, one a minibatch.

    Attributes:
        of: the representation.
        kernel: ``linear`` (rows shifted) or ``cosine`` (rows normalised, then shifted).
        pool: ``whole`` or ``mean`` over space.
        batch_size: examples a minibatch.
        dtype: of the activations.
        checkpoint_digest: of the parameters and batch statistics.
    """

    _parsers: ClassVar[Parsers] = {"of": RepresentationKey.from_text}

    of: RepresentationKey
    kernel: Kernel
    pool: Pool
    batch_size: int
    dtype: DType
    checkpoint_digest: str

    def __post_init__(self) -> None:
        check_choice("kernel", self.kernel, *get_args(Kernel))
        check_choice("pool", self.pool, *get_args(Pool))
        check_count("batch_size", self.batch_size)
        check_choice("dtype", self.dtype, *get_args(DType))
        check_text("checkpoint_digest", self.checkpoint_digest)

    @property
    def sample_set(self) -> str:
        """Name of the sample set."""
        return self.of.sample_set

    @property
    def variant(self) -> str:
        """The folder's name, such as ``linear-whole-256-float32-0123456789ab``."""
        digest = _short_digest(self.checkpoint_digest)
        return f"{self.kernel}-{self.pool}-{self.batch_size}-{self.dtype}-{digest}"

    @property
    def path(self) -> str:
        """Path of the group below the store's root."""
        return f"{self.of.path}/{self.variant}"

    @property
    def text(self) -> str:
        """The names, joined by ``/``."""
        return f"{self.of.text}/{self.variant}"

    @property
    def title(self) -> str:
        """The words for them in an error."""
        return f"the Grams {self.variant} of {self.of.title}"

    def __str__(self) -> str:
        return f"Grams {self.variant} of {self.of}"


@dataclass(frozen=True)
class GramMeta(Meta):
    """Metadata of Grams: of which representation, over which examples, in which minibatches.

    Attributes not described here are those of ``RepresentationMeta``.

    Attributes:
        ranges: first row of each minibatch and the first row after it, from 0 to the end.
        precision: in which the Grams are stored: float64 where float32 would lose digits of one.
    """

    _parsers: ClassVar[Parsers] = {"key": GramKey.from_json, "sample_set": SampleSet.from_json}

    key: GramKey
    sample_set: SampleSet
    tap_index: int
    ranges: tuple[tuple[int, int], ...]
    created_by: str
    created_at: str
    attributes: Attributes = field(default_factory=dict, hash=False)
    n_taps: int | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, *get_args(Precision))
        check_ranges(self.ranges, self.n_samples)
        self._check_common()

    @property
    def checkpoint_digest(self) -> str:
        """Digest of the parameters and batch statistics."""
        return self.key.checkpoint_digest

    @property
    def dtype(self) -> DType:
        """Of the activations."""
        return self.key.dtype

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each minibatch."""
        return tuple(stop - start for start, stop in self.ranges)

    @property
    def length(self) -> int:
        """Minibatches."""
        return len(self.ranges)

    @property
    def width(self) -> int:
        """Length of the largest minibatch's packed triangle."""
        return triangle_size(max(self.sizes))

    @property
    def block_length(self) -> int:
        """Minibatches of a chunk."""
        return max(1, round(GRAM_CHUNK_BYTES / (4 * self.width)))


@dataclass(frozen=True)
class Commit(_Stored):
    """The promise that start to stop (exclusive) of the first axis are stored, and their digest."""

    start: int
    stop: int
    digest: str

    def __post_init__(self) -> None:
        check_count("start", self.start, least=0)
        check_count("stop", self.stop, least=self.start + 1)
        if not isinstance(self.digest, str) or not _CRC32C.fullmatch(self.digest):
            wanted = "want 'crc32c:' and 8 hexadecimal digits"
            raise SchemaError("digest", f"is {self.digest!r}", wanted)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        # Written out: every append writes the records of all blocks.
        return {"start": self.start, "stop": self.stop, "digest": self.digest}


def _attributes_by_name(key: RepresentationKey | GramKey) -> dict[str, str | int]:
    """Return the facts that the names of our own runs and checkpoints held in version 1."""
    of = key.of if isinstance(key, GramKey) else key
    found: dict[str, str | int] = {}
    if run := _RUN_1.fullmatch(of.run):
        found = {"depth": int(run[1]), "variant": run[2], "seed": int(run[3])}
    if epoch := _EPOCH_1.fullmatch(of.checkpoint):
        found["epoch"] = int(epoch[1] or 0)
    return found


def _as_python(attributes: object) -> object:
    """Return NumPy's numbers as Python's, which alone become JSON."""
    if not isinstance(attributes, Mapping):
        return attributes
    return {n: v.item() if isinstance(v, np.generic) else v for n, v in attributes.items()}


def _short_digest(digest: str) -> str:
    """Return 12 hexadecimal digits for a digest, whatever text that is."""
    if found := _SHA256.fullmatch(digest):
        return found[1]
    return hashlib.sha256(digest.encode("utf-8", "surrogatepass")).hexdigest()[:12]
