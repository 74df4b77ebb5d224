"""The accuracy of linear probes, from what is stored of them."""

from collections.abc import Sequence

import numpy as np

from allcnn.drawing.accuracy import Accuracies
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Pool
from allcnn.workspace.paths import Workspace
from flows.reporting.facts import is_outdated, probes
from store import ProbeResult


def stored_probes(place: Workspace) -> list[ProbeResult]:
    """Return the probes that can be read, of networks as they are now, the newest first."""
    found = [
        probe
        for probe in probes(place)
        if isinstance(probe, ProbeResult) and not is_outdated(place, probe)
    ]
    return sorted(found, key=lambda probe: str(probe.provenance.get("created_at")), reverse=True)


def accuracies(
    found: Sequence[ProbeResult],
    network: Selection,
    *,
    sample_set: str | None = None,
    taps: Sequence[str] | None = None,
    pool: Pool | None = None,
) -> Accuracies | None:
    """Return the accuracies of a network, on a sample set and of all layers where there are some.

    ``taps`` are the layers that they must be of, ``pool`` how these were pooled; None for any.
    """
    fitting = [
        probe
        for probe in found
        if (probe.taps[0].run, probe.taps[0].checkpoint) == (network.run, network.checkpoint)
        and (taps is None or [key.tap for key in probe.taps] == list(taps))
        and pool in (None, probe.pool)
    ]
    if not fitting:
        return None
    best = min(
        fitting, key=lambda probe: (probe.taps[0].sample_set != sample_set, -len(probe.taps))
    )
    names = [key.tap for key in best.taps]
    return Accuracies(names, np.asarray(best.accuracy), np.asarray(best.standard_errors))
