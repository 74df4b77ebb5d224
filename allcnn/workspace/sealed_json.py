"""JSON with a seal, a digest of its own text.

A seal shows what disks, networks and editors change; it is no protection against forgery.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from allcnn.errors import RunError
from allcnn.workspace.paths import json_bytes, read_json, write_json
from store.storage.paths import Place, read_bytes
from store.storage.remote_errors import reaching

SEALED_VERSION: Final = 2
"""The first ``schema_version`` of documents that have a seal."""

_SEAL: Final = "seal"
_VERSION: Final = "schema_version"


def write_sealed(path: Place, values: Mapping[str, Any]) -> None:
    """Write values with their seal, whole or not at all."""
    write_json(path, _sealed(values))


def read_sealed(path: Place) -> Any:
    """Read values without their seal; those of earlier versions have none.

    Raises RunError where the text is not, byte for byte, the one that was written. A document of a
    newer version is returned as it is, for its reader to refuse.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        return values
    seal, version = values.pop(_SEAL, None), values.get(_VERSION)
    if isinstance(version, int) and version > SEALED_VERSION:
        return values
    if seal is None and version == SEALED_VERSION:
        raise _changed(path, "it has lost its seal")
    with reaching(path):
        if seal is not None and read_bytes(path) != json_bytes(_sealed(values)):
            raise _changed(path, "its seal is of another content")
    return values


def is_sealed(path: Place) -> bool:
    """Return whether a document has a seal; raises WorkspaceError for one that is no JSON."""
    values = read_json(path)
    return isinstance(values, dict) and _SEAL in values


def _sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(json_bytes(values)).hexdigest()
    return dict(values) | {_SEAL: f"sha256:{digest}"}


def _changed(path: Place, reason: str) -> RunError:
    advice = f"if you changed it yourself, delete its {_SEAL} and write {_VERSION} 1"
    remedy = f"restore it from a copy, or {advice}"
    return RunError(str(path), f"is not what was written ({reason})", remedy=remedy)
