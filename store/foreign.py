"""Arrays of other libraries as NumPy's, and digests of them; none of these is imported."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError
from store.schema import check_component


def as_numpy(values: Any, name: str = "the array") -> npt.NDArray[Any]:
    """Return an array of any library as NumPy's; raises ArrayError, which calls it ``name``.

    Of PyTorch also one with gradients, on a device, or in bfloat16, which becomes float32.
    """
    if _is_masked(values):
        raise ArrayError(
            f"{name} is a masked array, and masks are not stored; give plain numbers, as"
            " values.filled(...) does"
        )
    try:
        return np.asarray(_of_torch(values) if hasattr(values, "detach") else values)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArrayError(f"{name} cannot be made an array of NumPy's: {reason}") from error


def _is_masked(values: Any) -> bool:
    # NumPy drops the masks of those in a list too.
    parts = values if isinstance(values, list | tuple) else [values]
    return any(isinstance(part, np.ma.MaskedArray) for part in parts)


def _of_torch(values: Any) -> Any:
    tensor = values.detach().cpu()
    # PyTorch gives NumPy no bfloat16; float32 holds all of its values.
    return (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()


def check_numeric(name: str, dtype: np.dtype[Any]) -> None:
    """Raise ArrayError unless values of this type can be stored as floating point numbers.

    Integers and booleans can: they are cast. JAX's bfloat16 is of no kind that NumPy knows.
    """
    if dtype.kind not in "biuf" and not dtype.name.startswith(("bfloat", "float")):
        raise ArrayError(
            f"{name} is of type {dtype}; wanted are real numbers, floating point, integer or"
            " boolean"
        )


def as_rows(
    name: str, values: Any, channels_first: bool | Collection[str] = False
) -> npt.NDArray[Any]:
    """Return rows of a tap as NumPy's, with their channels last; raises ArrayError for others.

    ``channels_first`` says whether those of three or four axes have their channels second, of all
    taps or of some, which it names.
    """
    rows = as_numpy(values, f"tap {name}")
    check_tap(name, rows.shape)
    check_numeric(f"tap {name}", rows.dtype)
    first = channels_first if isinstance(channels_first, bool) else name in channels_first
    return np.moveaxis(rows, 1, -1) if first and rows.ndim > 2 else rows


def check_mapping(taps: object) -> None:
    """Raise ArrayError unless taps come with their names."""
    if not isinstance(taps, Mapping):
        raise ArrayError(
            f"taps are a {type(taps).__name__}; give a mapping of names to arrays, such as"
            ' {"conv1": values}'
        )


def check_tap(name: str, shape: tuple[int, ...]) -> None:
    """Raise InvalidKeyError or ArrayError unless this can be the name and shape of a tap."""
    check_component("tap", name)
    if not 2 <= len(shape) <= 4:
        many = "join some, as in values.reshape(len(values), values.shape[1], -1)"
        advice = "give it a second one, as in values[:, None]" if len(shape) == 1 else many
        raise ArrayError(
            f"tap {name} has the shape {shape}; wanted are two to four axes, examples first:"
            f" (n, c), (n, position, c) or (n, h, w, c); {advice}"
        )
    if 0 in shape[1:]:
        raise ArrayError(f"tap {name} has the shape {shape}, so no values; leave it out")


def digest(arrays: Mapping[str, Any], *texts: str) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of named arrays, in any order.

    Tells checkpoints apart: give it all that a network's activations depend on, such as PyTorch's
    ``state_dict()``, and in texts what no array tells: preprocessing, activation functions, hooks.
    """
    if not isinstance(arrays, Mapping):
        raise ArrayError(
            f"a digest is of a mapping of names to arrays, and got a {type(arrays).__name__}; give"
            " PyTorch's state_dict(), say"
        )
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        array = as_numpy(arrays[name], repr(name))
        check_numeric(repr(name), array.dtype)
        hasher.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hasher.update(as_bytes(array))
    for text in texts:
        if not isinstance(text, str):
            raise ArrayError(
                f"a digest is of one mapping and texts, and got a {type(text).__name__};"
                " put all arrays into the mapping"
            )
        # Its length keeps two texts apart from one.
        hasher.update(f"text {len(text)}\n{text}".encode())
    return f"sha256:{hasher.hexdigest()}"


def as_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return an array's bytes in C order, copied only where it has another one."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
