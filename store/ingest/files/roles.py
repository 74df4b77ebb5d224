"""Which arrays of some files are layers, which describe the examples, and which are left out.

The rules, in their order; all but the first are noted in a line each:

1. ``--tap NAME`` and ``--tap NEW=NAME`` choose layers, and then no others are.
2. ``--skip PATTERN`` leaves out.
3. ``labels`` and ``samples`` are the classes and the indices of the rows, in any usual form.
4. Arrays with another name that describes examples (``names.OTHERS``) are left out.
5. Numbers of two axes or more are layers, except one column of integers or truth values.
6. All others are left out: texts, dates, single values and single axes.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError, StoreError
from store.ingest.files.arrays import LABELS, METADATA, OTHERS, SAMPLES, ArrayFile, last_part
from store.model.names import fits, some_of
from store.model.schema import RepresentationKey

_LONGEST_METADATA: Final = 1_000_000
_MOST_LABELS: Final = 2**30
_MOST_NAMED: Final = 10
_WANTED_CLASSES: Final = (
    "want one integer, truth value or text a row, as (n,), (n, 1) or (1, n),"
    " or one-hot rows (n, classes)"
)


@dataclass
class Roles:
    """The roles of arrays.

    Attributes:
        taps: layers by their names, in order.
        labels: class of every row, None where the files hold none.
        samples: index of every row, None where the files hold none.
        notes: a line each on what was converted, renamed or left out.
    """

    taps: dict[str, ArrayFile] = field(default_factory=dict)
    labels: npt.NDArray[Any] | None = None
    samples: npt.NDArray[Any] | None = None
    notes: list[str] = field(default_factory=list)

    def _choose(self, text: str, arrays: Sequence[ArrayFile]) -> None:
        """Add the layer that ``--tap NAME`` or ``--tap NEW=NAME`` names."""
        usage = "write NAME or NEW=NAME"
        known = {name for each in arrays for name in (each.name, each.source)}
        new, _, old = (text, "", text) if text in known else text.partition("=")
        fitting = [each for each in arrays if old in (each.name, each.source)]
        if not fitting:
            found, remedy = f", and there is no array {old or text!r} among {_names(arrays)}", usage
        elif len(fitting) > 1:
            found = f", which stands for {' and '.join(each.source for each in fitting)}"
            remedy = f"choose one, as in --tap {new}={fitting[0].source}"
        elif not new:
            found, remedy = "", usage
        elif new in self.taps:
            found, remedy = f", and names {new!r} twice", "give each layer one name"
        elif new == fitting[0].name and last_part(new) in (*LABELS, *SAMPLES):
            found = f", and {fitting[0].source} is stored with the rows without being a layer"
            remedy = f"leave it out, or name a layer of it, as in --tap layer={new}"
        else:
            self._add_tap(new, fitting[0])
            return
        raise ArrayError(f"tap is {text!r}{found}", remedy=remedy)

    def _add_tap(self, name: str, array: ArrayFile) -> None:
        if array.read is None:
            advice = f"--skip {array.name} leaves it out"
            raise ArrayError(array.source, array.refusal, array.advice, advice)
        if name in self.taps:
            raise ArrayError(
                f"there are two arrays {name!r}",
                remedy=f"name all layers, as in --tap {name}-1={self.taps[name].source}"
                f" --tap {name}-2={array.source}, or leave one out, as in --skip {array.source}",
            )
        if array.remark:
            self.notes.append(f"{array.source} {array.remark}")
        self.taps[name] = array

    def _describe(self, role: Literal["labels", "samples"], array: ArrayFile) -> None:
        """Take classes or indices, which have to agree where several files hold them."""
        if math.prod(array.shape) > _MOST_LABELS:
            advice = f"--skip {array.name} leaves it out"
            raise ArrayError(_shown(array), f"is too large for {role}", remedy=advice)
        values, form = array.read_all(), ""
        if role == "labels":
            values, form = as_classes(array.source, values)
        else:
            values = as_indices(array.source, values)
        before = getattr(self, role)
        if before is None and (form or len(array.shape) > 1):
            self.notes.append(f"{_shown(array)} is taken as the {role}{form and f' ({form})'}")
        if before is not None and not np.array_equal(before, values):
            advice = f"give files of the same examples in the same order, or --skip {array.source}"
            found = f"differs from the {role} of another file"
            raise ArrayError(array.source, found, remedy=advice)
        setattr(self, role, values)


def assign(
    arrays: Sequence[ArrayFile],
    taps: Sequence[str] = (),
    skip: Sequence[str] = (),
    known: Sequence[str] = (),
) -> Roles:
    """Distinguish layers from the other arrays of some files.

    ``taps`` are values of ``--tap``, ``skip`` of ``--skip``; ``known`` says which of labels and
    samples are given elsewhere. Raises ArrayError where a choice fits nothing, names are not
    unique, or there is no layer.
    """
    roles, left = Roles(), list(arrays)
    for pattern in skip:
        fitting = [each for each in left if pattern == each.source or fits(each.name, pattern)]
        if not fitting:
            raise ArrayError("skip", f"is {pattern!r}, and fits none of {_names(arrays)}")
        roles.notes += [f"left out {each.source}, as --skip says" for each in fitting]
        left = [each for each in left if each not in fitting]
    for text in taps:
        roles._choose(text, left)
    chosen = set(roles.taps.values())
    for array in left:
        name = last_part(array.name)
        role: Literal["labels", "samples"] = "labels" if name in LABELS else "samples"
        if array in chosen:
            continue
        if name in (*LABELS, *SAMPLES) and role not in known:
            roles._describe(role, array)
        elif name in (*LABELS, *SAMPLES):
            roles.notes.append(f"left out {_shown(array)}, as --{role} is given")
        elif reason := ", which --tap does not name" if taps else _why_no_layer(name, array):
            roles.notes.append(f"left out {_shown(array)}{reason}")
        else:
            tap = _queried_name(array, left) or array.name
            if tap != array.name:
                roles.notes.append(f"{array.source} is called {tap}, as its metadata say")
            roles._add_tap(tap, array)
    _check_taps(roles, arrays)
    return roles


def _queried_name(array: ArrayFile, arrays: Sequence[ArrayFile]) -> str | None:
    """Return the name of a layer that ``store query`` wrote, from the metadata beside it."""
    if array.name not in ("values", array.file.stem):
        return None
    beside = {each.name: each for each in arrays if each.file == array.file}
    metadata = beside.get(METADATA)
    if metadata is None or ("values" in beside and array.name != "values"):
        return None
    dtype = metadata.dtype
    if metadata.shape or dtype.kind != "U" or dtype.itemsize > 4 * _LONGEST_METADATA:
        return None
    try:
        return RepresentationKey.from_text(json.loads(str(metadata.read_all()))["key"]).tap
    except (StoreError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _why_no_layer(name: str, array: ArrayFile) -> str:
    is_number = array.read is not None and array.dtype.kind not in "SUmM"
    options = ""
    if is_number and array.shape:
        options = f"; --labels {array.source} takes it as classes, --samples as indices"
        options += ", --tap as a layer" if len(array.shape) > 1 else ""
    if name in OTHERS:
        return f", which describes examples{options}"
    if array.read is None:
        return f": it {array.refusal}" if len(array.shape) < 2 else ""
    if not is_number:
        return ": it holds texts or dates"
    if not array.shape:
        return ": it is a single value"
    if len(array.shape) == 1:
        return f": it has one axis, and a layer two or more{options}"
    if array.shape[0] == 1:
        return ": it has one row, and a layer has one an example"
    if array.shape[1:] == (1,) and array.dtype.kind in "biu":
        return f": it has one column of integers, as labels and indices have{options}"
    return ""


def _check_taps(roles: Roles, arrays: Iterable[ArrayFile]) -> None:
    """Raise ArrayError unless there are layers, all of as many rows."""
    if not roles.taps:
        why = "; ".join(roles.notes)
        advice = "give arrays of two to four axes, examples first" + (why and f" ({why})")
        raise ArrayError(f"there are no activations among {_names(arrays)}", remedy=advice)
    lengths = {name: array.shape[:1] for name, array in roles.taps.items()}
    n, count = Counter(lengths.values()).most_common(1)[0]
    for name, array in roles.taps.items():
        if lengths[name] != n:
            rows = f"{count} of {len(lengths)} arrays have {n[0] if n else 'no'} rows"
            wanted = f"want one row an example, or leave it out with --skip {array.name}"
            raise ArrayError(name, f"has the shape {array.shape}, and {rows}", wanted)


def _names(arrays: Iterable[ArrayFile]) -> str:
    return some_of([each.name for each in arrays], 10)


def _shown(array: ArrayFile) -> str:
    dtype = "" if array.read is None else f" {array.dtype}"
    return f"{array.source} {array.shape}{dtype}"


def as_classes(source: str, values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], str]:
    """Return the class of every row, and in words how the values were converted, if at all.

    Raises ArrayError, which calls them ``source``, for values that are no classes.
    """
    rows = _one_axis(values)
    if rows is None:
        return _from_one_hot(source, values), "one-hot"
    if rows.dtype.kind in "SU":
        return _from_texts(source, rows)
    if rows.dtype.kind == "b":
        return rows.astype(np.int32), "false = 0, true = 1"
    return _as_integers(source, rows), ""


def as_indices(source: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the index of every row; raises ArrayError for values that are none."""
    rows = _one_axis(values)
    if rows is None or rows.dtype.kind not in "iuf":
        wanted = "want one integer a row, the index of its example in the data set"
        raise ArrayError(source, f"is {values.dtype} of shape {values.shape}", wanted)
    return _as_integers(source, rows)


def _one_axis(values: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return (n,), (n, 1) or (1, n) as (n,); None for other shapes."""
    if values.ndim == 1:
        return values
    return values.reshape(-1) if values.ndim == 2 and 1 in values.shape else None


def _from_one_hot(source: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.ndim != 2 or not values.size or values.dtype.kind not in "biuf":
        raise ArrayError(source, f"is {values.dtype} of shape {values.shape}", _WANTED_CLASSES)
    hot = values == 1
    odd = np.flatnonzero((hot.sum(axis=1) != 1) | ((values != 0) & ~hot).any(axis=1))
    if len(odd):
        found = f"of shape {values.shape} is not one-hot in row {odd[0]}"
        raise ArrayError(source, found, _WANTED_CLASSES)
    return np.asarray(hot.argmax(axis=1))


def _from_texts(source: str, rows: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], str]:
    try:
        texts = np.char.decode(rows, "utf-8") if rows.dtype.kind == "S" else rows
    except UnicodeDecodeError as error:
        raise ArrayError(source, "holds texts that are not UTF-8", _WANTED_CLASSES) from error
    known, classes = np.unique(np.char.strip(texts), return_inverse=True)
    pairs = [f"{str(text)[:40]!r} = {index}" for index, text in enumerate(known[:_MOST_NAMED])]
    return classes.reshape(-1), ", ".join(pairs) + (", ..." if len(known) > _MOST_NAMED else "")


def _as_integers(source: str, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if rows.dtype.kind in "iu":
        return rows
    if rows.dtype.kind != "f":
        raise ArrayError(source, f"is of type {rows.dtype}", _WANTED_CLASSES)
    rows = rows.astype(np.float64)
    odd = np.flatnonzero(~(np.isfinite(rows) & (rows == np.round(rows)) & (np.abs(rows) < 2**53)))
    if len(odd):
        raise ArrayError(source, f"has {rows[odd[0]]:g} in row {odd[0]}", _WANTED_CLASSES)
    return rows.astype(np.int64)
