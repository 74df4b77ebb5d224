"""Names of a package that are imported when they are asked for, so that commands start fast."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy(package: str, file: str) -> tuple[Callable[[str], Any], list[str]]:
    """Return a package's ``__getattr__`` and ``__all__``: what it imports for type checkers alone.

    Names are written once, as in the stub files of SPEC 1 of Scientific Python.
    """
    blocks = (each for each in ast.parse(Path(file).read_bytes()).body if isinstance(each, ast.If))
    imports = (each for block in blocks for each in block.body if isinstance(each, ast.ImportFrom))
    homes = {name.name: str(each.module) for each in imports for name in each.names}

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    return find, list(homes)
