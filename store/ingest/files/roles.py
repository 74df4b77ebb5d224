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
from store.ingest.files.classes import as_classes, as_indices
from store.model.names import fits
from store.model.schema import RepresentationKey

_LONGEST_METADATA: Final = 1_000_000
_MOST_LABELS: Final = 2**30


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
        usage, given = "write NAME or NEW=NAME", f"tap is {text!r},"
        known = {name for each in arrays for name in (each.name, each.source)}
        new, _, old = (text, "", text) if text in known else text.partition("=")
        fitting = [each for each in arrays if old in (each.name, each.source)]
        if not fitting:
            found = f"and there is no array {old or text!r} among {_names(arrays)}"
            raise ArrayError(given, found, remedy=usage)
        array = fitting[0]
        if len(fitting) > 1:
            found = f"which stands for {' and '.join(each.source for each in fitting)}"
            advice = f"choose one, as in --tap {new}={array.source}"
            raise ArrayError(given, found, remedy=advice)
        if not new:
            raise ArrayError("tap", f"is {text!r}", usage)
        if new in self.taps:
            raise ArrayError("tap", f"names {new!r} twice", "give each layer one name")
        if new == array.name and last_part(new) in (*LABELS, *SAMPLES):
            found = f"and {array.source} is stored with the rows without being a layer"
            advice = f"leave it out, or name a layer of it, as in --tap layer={array.name}"
            raise ArrayError(given, found, remedy=advice)
        self._add_tap(new, array)

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
    names = [each.name for each in arrays]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _shown(array: ArrayFile) -> str:
    dtype = "" if array.read is None else f" {array.dtype}"
    return f"{array.source} {array.shape}{dtype}"
