"""Who made what is stored, when, and with which versions."""

from datetime import UTC, datetime
from importlib.metadata import version
from typing import TypedDict

_PACKAGES = ("allcnn-cka", "jax", "numpy", "zarr", "dask")


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Stamp(TypedDict):
    """The maker of metadata."""

    created_by: str
    created_at: str


def stamp() -> Stamp:
    """Return what metadata written now say of their maker."""
    return {"created_by": f"allcnn-cka {version('allcnn-cka')}", "created_at": now()}


def versions() -> dict[str, str]:
    """Return the versions of the packages that numbers depend on."""
    return {package: version(package) for package in _PACKAGES}
