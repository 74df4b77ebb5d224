"""The accuracy of linear probes, from what is stored of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import store
from allcnn.compare.kept import kept_digest
from allcnn.config import Selection
from allcnn.drawing.accuracy import Accuracies
from allcnn.workspace import Workspace


def stored_probes(place: Workspace) -> list[Any]:
    """Return the probes that are stored, the newest first; none where nothing keeps any."""
    names = getattr(store, "list_probes", None)
    folder = place.root / "probes.zarr"
    if names is None or not store.has_store(folder):
        return []
    found = [store.read_probe(folder, name) for name in names(folder)]  # type: ignore[attr-defined]
    return sorted(found, key=lambda probe: str(probe.provenance.get("created_at")), reverse=True)


def accuracies(
    place: Workspace,
    probes: Sequence[Any],
    network: Selection,
    *,
    sample_set: str | None = None,
    taps: Sequence[str] | None = None,
) -> Accuracies | None:
    """Return those of a network, on a sample set rather than on others, or None.

    Those of another checkpoint than the one that is there under its name do not count. ``taps`` are
    the layers that they must be of; None for any.
    """
    digest = kept_digest(place, network)
    fitting = [
        probe
        for probe in probes
        if (probe.taps[0].run, probe.taps[0].checkpoint) == (network.run, network.checkpoint)
        and (digest is None or probe.provenance.get("checkpoint_digest") in (None, digest))
        and (taps is None or [key.tap for key in probe.taps] == list(taps))
    ]
    fitting.sort(key=lambda probe: probe.taps[0].sample_set != sample_set)
    if not fitting:
        return None
    chosen = fitting[0]
    return Accuracies(
        [key.tap for key in chosen.taps],
        np.asarray(chosen.accuracy),
        np.asarray(chosen.standard_errors),
    )
