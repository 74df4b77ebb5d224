"""Arrays of other libraries as NumPy's, and digests of them; no such library is imported."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError
from store.model import names

_SCALARS = (bool, int, float, complex, str, bytes, np.generic, type(None))


def as_floats(values: Any, name: str = "the array") -> npt.NDArray[Any]:
    """Return real numbers as NumPy's own floats that hold them; raises as ``as_real`` does."""
    array = as_real(values, name)
    if array.dtype.kind in "biu":
        return array.astype(np.promote_types(array.dtype, np.float32))
    # Added types are bfloat16 and shorter ones.
    return array if issubclass(array.dtype.type, np.floating) else array.astype(np.float32)


def as_real(values: Any, name: str = "the array") -> npt.NDArray[Any]:
    """Return real numbers as ``as_numpy`` does; raises ArrayError for anything else, too."""
    array = as_numpy(values, name)
    check_numeric(name, array.dtype)
    return array


def as_numpy(values: Any, name: str = "the array") -> npt.NDArray[Any]:
    """Return an array of any library as NumPy's; raises ArrayError, which calls it ``name``.

    PyTorch's may have gradients, lie on a device, or be in bfloat16 or float8, which become
    float32; pandas' may be of types that know missing values, which must not be missing; lists may
    hold any of these. Masks, which NumPy would drop, and sparse arrays are refused.
    """
    check_dense(name, values)
    try:
        # Not asarray, which drops masks.
        array = np.asanyarray(_known_to_numpy(values, name))
    except ArrayError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArrayError(f"{name} cannot be made an array of NumPy's: {reason}") from error
    check_dense(name, array)
    return np.asarray(array)


def check_dense(name: str, values: Any) -> None:
    """Raise ArrayError where an array is sparse or has masks, as far as that shows unread."""
    if _is_masked(values):
        advice = "fill them, as values.filled(...) does, or leave their examples out"
        raise ArrayError(name, "has masked values, which are no numbers", remedy=advice)
    is_torch = hasattr(values, "detach") and "sparse" in str(getattr(values, "layout", ""))
    methods = (
        ["to_dense"] if is_torch else [m for m in ("toarray", "todense") if hasattr(values, m)]
    )
    if methods:
        advice = f"give it as a dense array, as values.{methods[0]}() does"
        raise ArrayError(name, "is sparse", remedy=advice)


def _is_masked(values: Any) -> bool:
    if hasattr(values, "get_mask"):  # PyTorch's MaskedTensor: True is what it keeps
        return not bool(values.get_mask().all())
    # Those of Astropy are subclasses of NumPy's too.
    is_special = isinstance(values, np.ndarray) and type(values) is not np.ndarray
    mask = np.asarray(getattr(values, "mask", False) if is_special else False)
    return mask.dtype.names is None and bool(mask.any())


def _known_to_numpy(values: Any, name: str) -> Any:
    if isinstance(values, list | tuple):
        return np.asarray([v if isinstance(v, _SCALARS) else as_numpy(v, name) for v in values])
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        # PyTorch gives NumPy neither; float32 holds all of their values.
        is_short = any(each in str(tensor.dtype) for each in ("bfloat16", "float8"))
        return (tensor.float() if is_short else tensor).numpy()
    if hasattr(values, "__dask_graph__") and values.__dask_graph__() is not None:
        # Dask's own conversion drops the masks of its blocks.
        return as_numpy(values.compute(), name)
    return _of_pandas(values, name) if hasattr(values, "isna") else values


def _of_pandas(values: Any, name: str) -> Any:
    is_table = values.ndim == 2
    columns = [values.iloc[:, i] for i in range(values.shape[1])] if is_table else [values]
    for column in columns:
        # NaN in a column of NumPy's own type is a number that was computed.
        if not isinstance(column.dtype, np.dtype) and column.isna().any():
            advice = "fill them, or leave their examples out"
            raise ArrayError(name, "has missing values", remedy=advice)
    arrays = [np.asarray(column) for column in columns]
    # As one, columns of several types would become Python objects.
    return np.stack(arrays, axis=1) if is_table else arrays[0]


def check_numeric(name: str, dtype: np.dtype[Any]) -> None:
    """Raise ArrayError unless values of this type can be stored as floating point numbers.

    Integers and booleans can: they are cast. JAX's bfloat16 and the like are of no kind that NumPy
    knows, and go by their names.
    """
    is_added = dtype.isbuiltin == 2 and dtype.name.startswith(("bfloat", "float", "int", "uint"))
    if dtype.kind not in "biuf" and not is_added:
        wanted = "wanted are real numbers, floating point, integer or boolean"
        raise ArrayError(name, f"is of type {dtype}", wanted)


def as_integers(
    name: str, values: Any, dtype: type[np.integer[Any]], n: int, refuse: Any = ArrayError
) -> npt.NDArray[Any]:
    """Return ``n`` integers, one a row, in a dtype that must hold them; raises ``refuse``."""
    array = as_numpy(values, name)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        found = f"are {array.dtype} of shape {array.shape}"
        raise refuse(name, found, "want one axis of integers, one a row")
    if len(array) != n:
        raise refuse("there are", f"{len(array)} {name} for {n} rows", "want one a row")
    cast = array.astype(dtype, order="C", copy=False)
    if not np.array_equal(cast, array):
        wanted = f"want integers that fit {cast.dtype}"
        raise refuse(name, f"reach {np.abs(array).max()}", wanted)
    return cast


class Sliced(Protocol):
    """An array of any library, also one on disk, that gives its rows by slicing."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Return some rows."""


def as_sliced(values: Any, name: str) -> Sliced:
    """Return an array as it is if rows can be read of it, and others as NumPy's.

    Check the rows that are read again, as ``as_real`` does: any of them may be masked.
    """
    check_dense(name, values)
    # Slices of pandas' go by labels where its index holds floats.
    is_sliced = hasattr(values, "shape") and not hasattr(values, "isna")
    array: Sliced = values if is_sliced else as_real(values, name)
    return array


def as_rows(
    name: str, values: Any, channels_first: bool | Collection[str] = False
) -> npt.NDArray[Any]:
    """Return rows of a tap as NumPy's, with their channels last; raises ArrayError for others.

    ``channels_first`` says of which taps, or whether of all, those of 3 or 4 axes have them second.
    """
    rows = as_real(values, f"tap {name}")
    check_tap(name, rows.shape)
    first = channels_first if isinstance(channels_first, bool) else name in channels_first
    return np.moveaxis(rows, 1, -1) if first and rows.ndim > 2 else rows


def check_mapping(taps: object) -> None:
    """Raise ArrayError unless taps come with their names."""
    if not isinstance(taps, Mapping):
        advice = 'give a mapping of names to arrays, such as {"conv1": values}'
        raise ArrayError("taps", f"are a {type(taps).__name__}", remedy=advice)


def check_tap(name: str, shape: tuple[int, ...]) -> None:
    """Raise InvalidKeyError or ArrayError unless this can be the name and shape of a tap."""
    names.check_tap(name)
    if not 2 <= len(shape) <= 4:
        many = "join some, as in values.reshape(len(values), values.shape[1], -1)"
        raise ArrayError(
            f"tap {name}",
            f"has the shape {shape}",
            "wanted are two to four axes, examples first: (n, c), (n, position, c) or (n, h, w, c)",
            "give it a second one, as in values[:, None]" if len(shape) == 1 else many,
        )
    if 0 in shape[1:]:
        raise ArrayError(f"tap {name}", f"has the shape {shape}, so no values", "leave it out")


def digest(arrays: Mapping[str, Any], *texts: str) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of named arrays, in any order.

    It identifies a checkpoint: give all that a network's activations depend on, such as PyTorch's
    ``state_dict()``, and as texts what no array shows: preprocessing, activation functions, hooks.
    """
    if not isinstance(arrays, Mapping):
        raise ArrayError(
            "a digest is of a mapping of names to arrays,",
            f"and got a {type(arrays).__name__}",
            remedy="give PyTorch's state_dict(), say",
        )
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        array = as_real(arrays[name], repr(name))
        hasher.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hasher.update(as_bytes(array))
    for text in texts:
        if not isinstance(text, str):
            raise ArrayError(
                "a digest is of one mapping and texts,",
                f"and got a {type(text).__name__}",
                remedy="put all arrays into the mapping",
            )
        # Its length keeps two texts apart from one.
        hasher.update(f"text {len(text)}\n{text}".encode())
    return f"sha256:{hasher.hexdigest()}"


def as_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return an array's bytes in C order, copied only where it has another one."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
