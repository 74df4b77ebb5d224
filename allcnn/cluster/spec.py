"""Where tasks run, as people write it: ``threads``, ``local:4``, ``gpu``, or an address."""

import re
from dataclasses import dataclass
from typing import Final, Literal, Self

from allcnn.definitions.fields import Setting
from allcnn.errors import ConfigError

Kind = Literal["threads", "local", "gpu", "address", "function"]

MAX_WORKERS: Final = 1024
"""A mistyped number must not start processes until the machine dies."""

FORMS: Final = (
    "threads, local, local:WORKERS, gpu, tls://HOST:PORT, tcp://HOST:PORT or MODULE:FUNCTION"
)

PATTERN: Final = (
    r"^(threads|gpu|local(:[1-9][0-9]{0,3})?|(tcp|tls)://[A-Za-z0-9_.\[\]:-]+:[0-9]{1,5}"
    r"|[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*)$"
)
"""The same for the forms of a web page."""

_FORM = re.compile(PATTERN)

_NO_MODULES = ("threads", "local", "gpu")


@dataclass(frozen=True)
class ClusterSpec:
    """Where tasks run.

    Attributes:
        kind: threads of this process; processes of this machine, each pinned to a core; one
            process a GPU; a scheduler that runs already; or what a function of the user starts.
        n_workers: processes of ``local``; None for one a core.
        target: the scheduler's address, or MODULE:FUNCTION.
    """

    kind: Kind = "threads"
    n_workers: int | None = None
    target: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what was written; raises ConfigError for what names no cluster."""
        name, colon, rest = text.partition(":")
        if name == "local" and rest.isdecimal() and int(rest[:9]) > MAX_WORKERS:
            raise ConfigError(f"cluster is {text!r}", remedy=f"use {MAX_WORKERS} workers or fewer")
        if not _FORM.fullmatch(text) or (name in _NO_MODULES and colon and not rest.isdecimal()):
            raise ConfigError(f"cluster is {text!r}", remedy=f"use {FORMS}")
        if "://" in text:
            return cls("address", target=text)
        if name not in _NO_MODULES:
            return cls("function", target=text)
        kind: Kind = name  # type: ignore[assignment]  # one of three of them
        return cls(kind, int(rest) if rest else None)

    def __str__(self) -> str:
        if self.kind in ("address", "function"):
            return self.target
        return self.kind + (f":{self.n_workers}" if self.n_workers is not None else "")


THREADS: Final = ClusterSpec()

CLUSTER: Final = Setting(
    "cluster",
    THREADS,
    "where tasks run: threads, local[:WORKERS] on a core each, gpu, tls:// or tcp://HOST:PORT of a"
    " scheduler, or MODULE:FUNCTION that starts one",
    pattern=PATTERN,
    read=ClusterSpec.parse,
    metavar="WHERE",
)
