"""What is stored beside the arrays, validated: keys, sample sets, metadata, commit records."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args

from store.errors import InvalidKeyError, SchemaError
from store.model.field_checks import (
    as_python,
    as_tuple,
    check_attributes,
    check_choice,
    check_count,
    check_n_taps,
    check_ranges,
    check_shape,
    check_text,
    check_utc,
    exact_fields,
)
from store.model.names import check_component, check_tap, tap_folder

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

_SHA256 = re.compile(r"sha256:([0-9a-f]{12})[0-9a-f]*")
_CRC32C = re.compile(r"crc32c:[0-9a-f]{8}")
_SINCE_2 = ("attributes", "n_taps")
_RUN = re.compile(r".+-d(\d{1,9})-(v[12])-s(\d{1,9})")
_EPOCH = re.compile(r"init|epoch-(\d{4,9})")


@dataclass(frozen=True)
class SampleSet:
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
            raise SchemaError(f"digest is {self.digest!r}; want at least 8 characters")
        check_component("sample set", self.name)

    @property
    def name(self) -> str:
        """The folder's name, such as ``cifar10-test-10000-0a1b2c3d``."""
        return f"{self.dataset}-{self.split}-{self.n_samples}-{self.digest[:8]}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self) | {"image_shape": list(self.image_shape)}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Rebuild a sample set; raises SchemaError for what is not one."""
        found = exact_fields(cls, values)
        found["image_shape"] = as_tuple("image_shape", found["image_shape"])
        with _malformed():
            return cls(**found)


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
                f"{text!r} is not the key of a representation: want"
                " 'sample set/run/checkpoint/tap'; the store is malformed, write it again"
            ) from error


@dataclass(frozen=True)
class RepresentationMeta:
    """What an activation array is: who made it, from which checkpoint, over which examples.

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
        check_count("tap_index", self.tap_index, least=0)
        check_shape("shape", self.shape)
        if not 1 <= len(self.shape) <= 3:
            raise SchemaError(f"shape {self.shape} has {len(self.shape)} axes; use 1 to 3")
        check_choice("dtype", self.dtype, *get_args(DType))
        check_count("batch_rows", self.batch_rows)
        check_text("created_by", self.created_by)
        check_utc("created_at", self.created_at)
        object.__setattr__(self, "attributes", as_python(self.attributes))
        check_attributes(self.attributes)
        check_n_taps(self.n_taps, self.tap_index)
        _check_same_sample_set(self.key, self.sample_set)

    @property
    def n_samples(self) -> int:
        """Rows of the finished array."""
        return self.sample_set.n_samples

    @property
    def length(self) -> int:
        """Length of the finished array along its first axis."""
        return self.n_samples

    @property
    def block_length(self) -> int:
        """Rows that are written and committed at once."""
        return self.batch_rows

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        nested = {"key": self.key.text, "sample_set": self.sample_set.to_json()}
        return _plain(self) | nested | {"shape": list(self.shape)}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Rebuild metadata; raises SchemaError for what is not metadata."""
        found = exact_fields(cls, values, since_2=_SINCE_2)
        found["key"] = RepresentationKey.from_text(found["key"])
        found.setdefault("attributes", attributes_by_name(found["key"]))
        found["sample_set"] = SampleSet.from_json(found["sample_set"])
        found["shape"] = as_tuple("shape", found["shape"])
        with _malformed():
            return cls(**found)


@dataclass(frozen=True, order=True)
class GramKey:
    """Where the Grams of one representation are stored, one a minibatch.

    Attributes:
        of: the representation.
        kernel: ``linear`` (rows shifted) or ``cosine`` (rows normalised, then shifted).
        pool: ``whole`` or ``mean`` over space.
        batch_size: examples a minibatch.
        dtype: of the activations.
        checkpoint_digest: of the parameters and batch statistics.
    """

    of: RepresentationKey
    kernel: Kernel
    pool: Pool
    batch_size: int
    dtype: DType
    checkpoint_digest: str

    def __post_init__(self) -> None:
        check_choice("kernel", self.kernel, "linear", "cosine")
        check_choice("pool", self.pool, "whole", "mean")
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

    def __str__(self) -> str:
        return f"Grams {self.variant} of {self.of}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self) | {"of": self.of.text}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Rebuild a key; raises SchemaError for what is not one."""
        found = exact_fields(cls, values)
        found["of"] = RepresentationKey.from_text(found["of"])
        return cls(**found)


@dataclass(frozen=True)
class GramMeta:
    """What an array of Grams is: of what, over which examples, in which minibatches.

    Attributes:
        key: where it is stored.
        sample_set: the examples, in their order.
        tap_index: position of the tap in its network, from 0.
        ranges: first row of each minibatch and the first row after it, from 0 to the end.
        created_by: program and version.
        created_at: ISO 8601 in UTC, such as ``2026-01-31T12:00:00+00:00``.
        attributes: facts about the network to find it by, such as ``{"depth": 1, "epoch": 5}``.
        n_taps: of the network, as far as its writer knew; the loss of a whole tap shows by it.
        precision: in which the Grams are stored: float64 where float32 would lose digits of one.
    """

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
        check_choice("precision", self.precision, "float32", "float64")
        check_count("tap_index", self.tap_index, least=0)
        check_ranges(self.ranges, self.n_samples)
        check_text("created_by", self.created_by)
        check_utc("created_at", self.created_at)
        object.__setattr__(self, "attributes", as_python(self.attributes))
        check_attributes(self.attributes)
        check_n_taps(self.n_taps, self.tap_index)
        _check_same_sample_set(self.key, self.sample_set)

    @property
    def n_samples(self) -> int:
        """Rows of all minibatches together."""
        return self.sample_set.n_samples

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each minibatch."""
        return tuple(stop - start for start, stop in self.ranges)

    @property
    def length(self) -> int:
        """Length of the finished array along its first axis: minibatches."""
        return len(self.ranges)

    @property
    def width(self) -> int:
        """Length of the largest minibatch's packed triangle."""
        n = max(self.sizes)
        return n * (n + 1) // 2

    @property
    def block_length(self) -> int:
        """Minibatches that are written and committed at once."""
        return max(1, round(GRAM_CHUNK_BYTES / (4 * self.width)))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        nested = {"key": self.key.to_json(), "sample_set": self.sample_set.to_json()}
        return _plain(self) | nested | {"ranges": [list(pair) for pair in self.ranges]}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Rebuild metadata; raises SchemaError for what is not metadata."""
        found = exact_fields(cls, values, since_2=(*_SINCE_2, "precision"))
        found["key"] = GramKey.from_json(found["key"])
        found.setdefault("attributes", attributes_by_name(found["key"].of))
        found["sample_set"] = SampleSet.from_json(found["sample_set"])
        if not isinstance(found["ranges"], list):
            raise SchemaError(f"ranges are {found['ranges']!r}; want a list of pairs")
        found["ranges"] = tuple(as_tuple("range", pair) for pair in found["ranges"])
        return cls(**found)


@dataclass(frozen=True)
class Commit:
    """The promise that start to stop (exclusive) of the first axis are stored, and their digest."""

    start: int
    stop: int
    digest: str

    def __post_init__(self) -> None:
        check_count("start", self.start, least=0)
        check_count("stop", self.stop, least=self.start + 1)
        if not isinstance(self.digest, str) or not _CRC32C.fullmatch(self.digest):
            raise SchemaError(f"digest is {self.digest!r}; want 'crc32c:' and 8 hexadecimal digits")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"start": self.start, "stop": self.stop, "digest": self.digest}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Rebuild a commit record; raises SchemaError for what is not one."""
        return cls(**exact_fields(cls, values))


@contextmanager
def _malformed() -> Iterator[None]:
    try:
        yield
    except InvalidKeyError as error:
        raise SchemaError(f"the stored metadata are malformed: {error}") from error


def attributes_by_name(key: RepresentationKey) -> dict[str, str | int | float | bool]:
    """Return what our own names of runs and checkpoints tell; version 1 had nothing else."""
    found: dict[str, str | int | float | bool] = {}
    run = _RUN.fullmatch(key.run)
    if run:
        found |= {"depth": int(run[1]), "variant": run[2], "seed": int(run[3])}
    epoch = _EPOCH.fullmatch(key.checkpoint)
    if epoch:
        found["epoch"] = int(epoch[1] or 0)
    return found


def _plain(meta: RepresentationMeta | GramMeta) -> dict[str, Any]:
    return {each.name: getattr(meta, each.name) for each in fields(meta)} | {
        "attributes": dict(meta.attributes)
    }


def _short_digest(digest: str) -> str:
    """Return 12 hexadecimal digits of a digest, whatever text that is."""
    found = _SHA256.fullmatch(digest)
    if found:
        return found.group(1)
    return hashlib.sha256(digest.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _check_same_sample_set(key: RepresentationKey | GramKey, sample_set: SampleSet) -> None:
    if key.sample_set != sample_set.name:
        raise SchemaError(
            f"the key {key.text} names another sample set than {sample_set.name};"
            " build the key from the sample set's name"
        )
