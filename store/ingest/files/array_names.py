"""What the name of an array says about it, in any case and any group."""

import re
from typing import Final

LABELS: Final = ("labels", "label")
"""The class of each example."""

SAMPLES: Final = ("samples", "sample")
"""The index of each example in its data set."""

METADATA: Final = "metadata"
"""The JSON text by which ``store query`` says which layer it wrote."""

OTHERS: Final = (
    "class", "classes", "target", "targets", "y", "y_true", "y_train", "y_test", "category",
    "id", "ids", "index", "indices", "idx", "image_id", "file", "files", "filename", "filenames",
    "file_names", "path", "paths", "name", "names", "__index_level_0__", "unnamed: 0", "",
)  # fmt: skip
"""Other names of arrays that describe examples; these are stored only where users ask for it."""


def last_part(name: str) -> str:
    """Return the last part of a name that is not blank, or else the name, in lower case."""
    parts = [part for part in re.split(r"[/.]", name) if part.strip()]
    return (parts[-1] if parts else name).strip().lower()


def describes_examples(name: str) -> bool:
    """Return whether an array of this name is taken for anything but a layer."""
    return last_part(name) in (*LABELS, *SAMPLES, *OTHERS)


def counting(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``layer10`` after ``layer9``."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
