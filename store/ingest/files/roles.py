"""Which arrays of some files are layers, which describe the examples, and which are left out.

The rules, in their order; all but the first are said in a line each:

1. ``--tap NAME`` and ``--tap NEW=OLD`` choose layers, and then no others are.
2. ``--skip PATTERN`` leaves out.
3. ``labels`` and ``samples`` are the classes and the indices of the rows, in any form that can be.
4. What is called as something else that describes examples is left out (``names``).
5. Numbers of two axes or more are layers, but for one column of integers or truth values.
6. All else is left out: texts, dates, single values and single axes.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError, StoreError
from store.ingest.files.arrays import Found, Refused, read_all
from store.ingest.files.classes import as_classes, as_indices
from store.ingest.files.names import LABELS, OTHERS, SAMPLES, plain
from store.model.names import fits
from store.model.schema import RepresentationKey

_QUERIED: Final = ("values", "metadata")
"""What ``store query`` calls a layer, and the JSON text that says which it is."""

_LONGEST_METADATA: Final = 1_000_000
_MOST_LABELS: Final = 2**30


@dataclass
class Roles:
    """What arrays are for.

    Attributes:
        taps: layers by their names, in order.
        labels: class of every row, None where the files hold none.
        samples: index of every row, None where the files hold none.
        notes: a line each on what was converted, renamed or left out.
    """

    taps: dict[str, Found] = field(default_factory=dict)
    labels: npt.NDArray[Any] | None = None
    samples: npt.NDArray[Any] | None = None
    notes: list[str] = field(default_factory=list)


def assign(
    arrays: Sequence[Found],
    taps: Sequence[str] = (),
    skip: Sequence[str] = (),
    known: Sequence[str] = (),
) -> Roles:
    """Tell layers from what else files hold.

    ``taps`` are as of ``--tap``, ``skip`` of ``--skip``; ``known`` says which of labels and samples
    are given elsewhere. Raises ArrayError where a choice fits nothing, names are not unique, or
    there is no layer.
    """
    roles = Roles()
    left = _without(arrays, skip, roles.notes)
    if taps:
        _choose(left, taps, roles)
    chosen = {id(each) for each in roles.taps.values()}
    queried = {} if taps else _queried_names(left)
    for each in left:
        if id(each) not in chosen:
            _assign(each, roles, queried, chosen=bool(taps), known=known)
    _check_taps(roles, arrays)
    return roles


def _without(arrays: Sequence[Found], skip: Sequence[str], notes: list[str]) -> list[Found]:
    left = list(arrays)
    for pattern in skip:
        fitting = [each for each in left if _fits(each, pattern)]
        if not fitting:
            raise ArrayError(f"skip is {pattern!r}, and fits none of {_names(arrays)}")
        notes.extend(f"left out {each.source}, as --skip says" for each in fitting)
        left = [each for each in left if each not in fitting]
    return left


def _fits(each: Found, pattern: str) -> bool:
    return pattern == each.source or fits(each.name, pattern)


def _choose(arrays: Sequence[Found], taps: Sequence[str], roles: Roles) -> None:
    for text in taps:
        new, each = _chosen(arrays, text)
        if not new:
            raise ArrayError(f"tap is {text!r}; write NAME or NEW=NAME")
        if new in roles.taps:
            raise ArrayError(f"tap names {new!r} twice; give each layer one name")
        if new == each.name and plain(new) in (*LABELS, *SAMPLES):
            raise ArrayError(
                f"tap is {text!r}, and {each.source} is stored with the rows without being a layer;"
                f" leave it out, or name a layer of it, as in --tap layer={each.name}"
            )
        _check_readable(each)
        _add_tap(roles, new, each)


def _chosen(arrays: Sequence[Found], text: str) -> tuple[str, Found]:
    """Return the name and the array that ``NAME`` or ``NEW=OLD`` stands for."""
    new, _, old = text.partition("=") if not _named(arrays, text) else (text, "", text)
    fitting = _named(arrays, old or text)
    if len(fitting) == 1:
        return (new if old else fitting[0].name), fitting[0]
    if fitting:
        raise ArrayError(
            f"tap is {text!r}, which stands for {' and '.join(each.source for each in fitting)};"
            f" choose one, as in --tap {new}={fitting[0].source}"
        )
    raise ArrayError(
        f"tap is {text!r}, and there is no array {old or text!r} among {_names(arrays)}; write NAME"
        " or NEW=NAME"
    )


def _named(arrays: Sequence[Found], text: str) -> list[Found]:
    return [each for each in arrays if text in (each.name, each.source)]


def _queried_names(arrays: Sequence[Found]) -> dict[int, str]:
    """Return what the layers that ``store query`` wrote are called, by their identities."""
    names: dict[int, str] = {}
    by_file: dict[Any, dict[str, Found]] = {}
    for each in arrays:
        by_file.setdefault(each.file, {})[each.name] = each
    for file, members in by_file.items():
        values = members.get(_QUERIED[0]) or members.get(file.stem)
        told = members.get(_QUERIED[1])
        tap = None if told is None else _queried_tap(told)
        if values is not None and tap is not None:
            names[id(values)] = tap
    return names


def _queried_tap(metadata: Found) -> str | None:
    array = metadata.array
    if isinstance(array, Refused) or array.shape or array.dtype.kind != "U":
        return None
    if array.dtype.itemsize > 4 * _LONGEST_METADATA:
        return None
    try:
        return RepresentationKey.from_text(json.loads(str(read_all(array)))["key"]).tap
    except (StoreError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _assign(
    each: Found, roles: Roles, queried: dict[int, str], chosen: bool, known: Sequence[str]
) -> None:
    name = plain(each.name)
    if name in (*LABELS, *SAMPLES):
        _describe(each, roles, "labels" if name in LABELS else "samples", known)
    elif chosen:
        roles.notes.append(f"left out {_shown(each)}, which --tap does not name")
    elif name in OTHERS:
        roles.notes.append(f"left out {_shown(each)}, which describes examples{_choice(each)}")
    elif reason := _why_no_layer(each):
        roles.notes.append(f"left out {_shown(each)}: {reason}")
    else:
        _check_readable(each)
        tap = queried.get(id(each), each.name)
        if tap != each.name:
            roles.notes.append(f"{each.source} is called {tap}, as its metadata say")
        _add_tap(roles, tap, each)


def _add_tap(roles: Roles, name: str, each: Found) -> None:
    if name in roles.taps:
        raise ArrayError(
            f"there are two arrays {name!r}; name all layers, as in"
            f" --tap {name}-1={roles.taps[name].source} --tap {name}-2={each.source},"
            f" or leave one out, as in --skip {each.source}"
        )
    if each.remark:
        roles.notes.append(f"{each.source} {each.remark}")
    roles.taps[name] = each


def _describe(each: Found, roles: Roles, role: str, known: Sequence[str]) -> None:
    """Take classes or indices, which have to agree where several files hold them."""
    if role in known:
        roles.notes.append(f"left out {_shown(each)}, as --{role} is given")
        return
    if math.prod(each.array.shape) > _MOST_LABELS:
        raise ArrayError(
            f"{_shown(each)} is too large for {role}; --skip {each.name} leaves it out"
        )
    values, told = read_all(each.array), ""
    if role == "labels":
        values, told = as_classes(each.source, values)
    else:
        values = as_indices(each.source, values)
    before = getattr(roles, role)
    if before is not None and not np.array_equal(before, values):
        raise ArrayError(
            f"{each.source} differs from the {role} of another file; give files of the same"
            f" examples in the same order, or --skip {each.source}"
        )
    if before is None and (told or len(each.array.shape) > 1):
        form = f" ({told})" if told else ""
        roles.notes.append(f"{_shown(each)} is taken as the {role}{form}")
    setattr(roles, role, values)


def _why_no_layer(each: Found) -> str:
    array = each.array
    if isinstance(array, Refused):
        return f"it {array.reason}" if len(array.shape) < 2 else ""
    if array.dtype.kind in "SUmM":
        return "it holds texts or dates"
    if not array.shape:
        return "it is a single value"
    if len(array.shape) == 1:
        return f"it has one axis, and a layer two or more{_choice(each)}"
    if array.shape[0] == 1:
        return "it has one row, and a layer has one an example"
    if array.shape[1:] == (1,) and array.dtype.kind in "biu":
        return f"it has one column of integers, as labels and indices have{_choice(each)}"
    return ""


def _choice(each: Found) -> str:
    """Return what takes an array for what it may be."""
    array = each.array
    if isinstance(array, Refused) or array.dtype.kind in "SUmM" or not array.shape:
        return ""
    use = f"; --labels {each.source} takes it as classes, --samples as indices"
    return use + (", --tap as a layer" if len(array.shape) > 1 else "")


def _check_readable(each: Found) -> None:
    if isinstance(each.array, Refused):
        raise ArrayError(f"{each.source} {each.array.reason}; --skip {each.name} leaves it out")


def _check_taps(roles: Roles, arrays: Iterable[Found]) -> None:
    """Raise ArrayError unless there are layers, all of as many rows."""
    if not roles.taps:
        why = "; ".join(roles.notes)
        raise ArrayError(
            f"there are no activations among {_names(arrays)}; give arrays of two to four axes,"
            f" examples first{why and f' ({why})'}"
        )
    shapes = {name: each.array.shape for name, each in roles.taps.items()}
    n, count = Counter(shape[:1] for shape in shapes.values()).most_common(1)[0]
    for name, shape in shapes.items():
        if shape[:1] != n:
            raise ArrayError(
                f"{name} has the shape {shape}, and {count} of {len(shapes)} arrays have"
                f" {n[0] if n else 'no'} rows; want one row an example, or leave it out with --skip"
                f" {roles.taps[name].name}"
            )


def _names(arrays: Iterable[Found]) -> str:
    names = [each.name for each in arrays]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _shown(each: Found) -> str:
    kind = "" if isinstance(each.array, Refused) else f" {each.array.dtype}"
    return f"{each.source} {each.array.shape}{kind}"
