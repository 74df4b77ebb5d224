"""How what writers left unfinished is gone on with."""

from collections.abc import Iterable

from allcnn.advice import extracting, is_here, options_of, store_again
from allcnn.compare.candidates import find
from allcnn.compare.reextract import as_stored
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from store.maintenance.damage import Unfinished


def to_finish(place: Workspace, unfinished: Iterable[Unfinished]) -> list[str]:
    """Say how to go on with each network of which something is unfinished."""
    return list(dict.fromkeys(f"to go on: {_advice(place, each)}" for each in unfinished))


def _advice(place: Workspace, unfinished: Unfinished) -> str:
    sample_set, run, checkpoint = unfinished.path.split("/")[:3]
    side = Selection(run, checkpoint)
    # What is damaged besides is reported as such.
    found = find(place, side, sample_set, skip=True)
    jobs = [job for job in as_stored(side, found) if unfinished.kind in job.keep]
    if not jobs or not is_here(place, side):
        return store_again(place, side)
    return f"run {extracting(place, side, **options_of(jobs[0]))}"
