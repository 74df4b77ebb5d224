"""What is stored beside the arrays, validated: keys, sample sets, metadata, commit records."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from store.errors import InvalidKeyError, SchemaError

SCHEMA_VERSION = 1
"""Version of everything below a store's root; raised when an older reader would misread it."""

DType = Literal["float32", "float16"]

_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_CRC32C = re.compile(r"crc32c:[0-9a-f]{8}")


def is_component(name: object) -> bool:
    """Return whether ``name`` is safe as one component of a path."""
    # A folder called zarr.json would take the place of its parent's metadata.
    return (
        isinstance(name, str)
        and _COMPONENT.fullmatch(name) is not None
        and ".." not in name
        and name != "zarr.json"
    )


def check_component(kind: str, name: object) -> None:
    """Raise InvalidKeyError unless ``name`` is safe as one component of a path."""
    if not is_component(name):
        raise InvalidKeyError(
            f"{kind} {name!r} cannot be a folder's name: use up to 200 letters, digits, '_', '-'"
            " and single dots, beginning with a letter or digit"
        )


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
        _check_count("n_samples", self.n_samples)
        _check_shape("image_shape", self.image_shape)
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
        found = _exact_fields(cls, values)
        found["image_shape"] = _as_tuple("image_shape", found["image_shape"])
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
        check_component("tap", self.tap)

    @property
    def path(self) -> str:
        """Path of the group below the store's root."""
        return f"{self.sample_set}/{self.run}/{self.checkpoint}/{self.tap}"

    def __str__(self) -> str:
        return f"{self.run}@{self.checkpoint}:{self.tap}"

    @classmethod
    def from_path(cls, path: object) -> Self:
        """Rebuild a key from its path; raises SchemaError for what is not one."""
        parts = path.split("/") if isinstance(path, str) else []
        if len(parts) != 4 or not all(map(is_component, parts)):
            raise SchemaError(
                f"{path!r} is not the path of a representation: want"
                " 'sample set/run/checkpoint/tap'; the store is malformed, write it again"
            )
        return cls(*parts)


@dataclass(frozen=True)
class RepresentationMeta:
    """What an activation array is: who made it, from which checkpoint, over which examples.

    Attributes:
        key: where it is stored.
        sample_set: the examples, in the order of the rows.
        checkpoint_digest: of the parameters and batch statistics.
        tap_index: position of the tap in its network, from 0.
        shape: of one example's activations: (h, w, c), (position, c) or (c,).
        dtype: as stored, ``float32`` or ``float16``.
        batch_rows: rows of a minibatch; the last one may have fewer.
        created_by: program and version.
        created_at: ISO 8601 in UTC, such as ``2026-01-31T12:00:00+00:00``.
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

    def __post_init__(self) -> None:
        _check_text("checkpoint_digest", self.checkpoint_digest)
        _check_count("tap_index", self.tap_index, least=0)
        _check_shape("shape", self.shape)
        if not 1 <= len(self.shape) <= 3:
            raise SchemaError(f"shape {self.shape} has {len(self.shape)} axes; use 1 to 3")
        if self.dtype not in ("float32", "float16"):
            raise SchemaError(f"dtype is {self.dtype!r}; use 'float32' or 'float16'")
        _check_count("batch_rows", self.batch_rows)
        _check_text("created_by", self.created_by)
        _check_utc("created_at", self.created_at)
        if self.key.sample_set != self.sample_set.name:
            raise SchemaError(
                f"the key {self.key.path} names another sample set than {self.sample_set.name};"
                " build the key from the sample set's name"
            )

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
        nested = {"key": self.key.path, "sample_set": self.sample_set.to_json()}
        return asdict(self) | nested | {"shape": list(self.shape)}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Rebuild metadata; raises SchemaError for what is not metadata."""
        found = _exact_fields(cls, values)
        found["key"] = RepresentationKey.from_path(found["key"])
        found["sample_set"] = SampleSet.from_json(found["sample_set"])
        found["shape"] = _as_tuple("shape", found["shape"])
        with _malformed():
            return cls(**found)


@dataclass(frozen=True)
class Commit:
    """The promise that rows start to stop (exclusive) are stored, and their digest."""

    start: int
    stop: int
    digest: str

    def __post_init__(self) -> None:
        _check_count("start", self.start, least=0)
        _check_count("stop", self.stop, least=self.start + 1)
        if not isinstance(self.digest, str) or not _CRC32C.fullmatch(self.digest):
            raise SchemaError(f"digest is {self.digest!r}; want 'crc32c:' and 8 hexadecimal digits")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"start": self.start, "stop": self.stop, "digest": self.digest}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Rebuild a commit record; raises SchemaError for what is not one."""
        return cls(**_exact_fields(cls, values))


@contextmanager
def _malformed() -> Iterator[None]:
    try:
        yield
    except InvalidKeyError as error:
        raise SchemaError(f"the stored metadata are malformed: {error}") from error


def _exact_fields(cls: type[Any], values: object) -> dict[str, Any]:
    wanted = [field.name for field in fields(cls)]
    if not isinstance(values, Mapping) or set(values) != set(wanted):
        found = sorted(map(str, values)) if isinstance(values, Mapping) else values
        raise SchemaError(
            f"stored {cls.__name__} is malformed: found {found!r}, want the fields"
            f" {', '.join(wanted)}; write it again"
        )
    return dict(values)


def _as_tuple(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise SchemaError(f"{name} is {value!r}; want a list of integers")
    return tuple(value)


def _check_count(name: str, value: object, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SchemaError(f"{name} is {value!r}; want an integer of at least {least}")


def _check_shape(name: str, value: object) -> None:
    if not isinstance(value, tuple) or not value:
        raise SchemaError(f"{name} is {value!r}; want a tuple of integers")
    for size in value:
        _check_count(name, size)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise SchemaError(f"{name} is {value!r}; want a text that is not empty")


def _check_utc(name: str, value: object) -> None:
    try:
        offset = datetime.fromisoformat(value).utcoffset() if isinstance(value, str) else None
    except ValueError:
        offset = None
    if offset != timedelta(0):
        raise SchemaError(f"{name} is {value!r}; want ISO 8601 in UTC, with its offset")
