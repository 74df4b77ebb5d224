"""Arrays of other libraries as NumPy's, and digests of them; none of these is imported."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError
from store.schema import check_component


def as_numpy(values: Any) -> npt.NDArray[Any]:
    """Return an array of any library as NumPy's.

    Of PyTorch also one with gradients, on a device, or in bfloat16, which becomes float32.
    """
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        # PyTorch gives NumPy no bfloat16; float32 holds all of its values.
        values = (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()
    return np.asarray(values)


def check_numeric(name: str, dtype: np.dtype[Any]) -> None:
    """Raise ArrayError unless values of this type can be stored as floating point numbers.

    Integers and booleans can: they are cast. JAX's bfloat16 is of no kind that NumPy knows.
    """
    if dtype.kind not in "biuf" and not dtype.name.startswith(("bfloat", "float")):
        raise ArrayError(
            f"{name} is of type {dtype}; wanted are real numbers, floating point, integer or"
            " boolean"
        )


def as_rows(name: str, values: Any, channels_first: bool = False) -> npt.NDArray[Any]:
    """Return rows of a tap as NumPy's, with their channels last; raises ArrayError for others."""
    rows = as_numpy(values)
    check_tap(name, rows.shape)
    check_numeric(f"tap {name}", rows.dtype)
    return np.moveaxis(rows, 1, -1) if channels_first and rows.ndim == 4 else rows


def check_tap(name: str, shape: tuple[int, ...]) -> None:
    """Raise InvalidKeyError or ArrayError unless this can be the name and shape of a tap."""
    check_component("tap", name)
    if not 2 <= len(shape) <= 4:
        advice = "give it a second one, as in values[:, None]" if len(shape) == 1 else "reshape it"
        raise ArrayError(
            f"tap {name} has the shape {shape}; wanted are two to four axes, examples first:"
            f" (n, c), (n, position, c) or (n, h, w, c); {advice}"
        )
    if 0 in shape[1:]:
        raise ArrayError(f"tap {name} has the shape {shape}, so no values; leave it out")


def digest(arrays: Mapping[str, Any]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of named arrays, in any order.

    Tells checkpoints apart: give it all that a network's activations depend on, such as PyTorch's
    ``state_dict()``.
    """
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        array = as_numpy(arrays[name])
        check_numeric(repr(name), array.dtype)
        hasher.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hasher.update(as_bytes(array))
    return f"sha256:{hasher.hexdigest()}"


def as_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return an array's bytes in C order, copied only where it has another one."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
