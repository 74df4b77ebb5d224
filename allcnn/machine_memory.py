"""The memory of this machine, compared with what work takes at least before it begins."""

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

from allcnn.errors import AllcnnError, ConfigError

_CGROUPS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where Linux says what a container may use, by its version 2 and 1."""


def check_room(
    what: str,
    n_bytes: int,
    advice: str,
    room: int | None = None,
    error: type[AllcnnError] = ConfigError,
) -> None:
    """Raise an error where work takes more bytes than this machine has, or than ``room``."""
    room = host_bytes() if room is None else room
    if n_bytes > room:
        found = f"takes at least {_size(n_bytes)} of memory, and there are {_size(room)}"
        raise error(what, found, remedy=advice)


def host_bytes() -> int:
    """Return the memory that this process may use."""
    limits = [
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        resource.getrlimit(resource.RLIMIT_AS)[0],
    ]
    for file in _CGROUPS:
        with suppress(OSError, ValueError):  # "max" where there is no limit
            limits.append(int(file.read_text()))
    return min(limit for limit in limits if limit != resource.RLIM_INFINITY)


def _size(n_bytes: int) -> str:
    scaled, units = float(n_bytes), ["bytes", "kB", "MB", "GB", "TB"]
    while scaled >= 1000 and len(units) > 1:
        scaled, units = scaled / 1000, units[1:]
    return f"{scaled:,.0f} {units[0]}"
