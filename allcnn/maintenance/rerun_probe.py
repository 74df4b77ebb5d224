"""Which command computes a damaged probe again: it does so in the place of the damaged one."""

from allcnn.commands import Command, command
from allcnn.errors import RunError
from allcnn.workspace.paths import Workspace
from store import StoreError
from store.records.probes import PROBES
from store.records.records import read_facts


def command_for(workspace: Workspace, name: str) -> Command:
    """Return the command that computes a probe again; raises RunError where it does not tell."""
    try:
        facts = read_facts(workspace.probes / name, PROBES) or {}
        job = facts["provenance"]["job"]
        flags = {
            "train_set": job["train_set"],
            "test_set": job["test_set"],
            "pool": job["pool"],
            "penalties": ",".join(map(str, job["penalties"])),
        }
        networks = str(job["networks"])
    except (StoreError, KeyError, TypeError) as error:
        raise RunError("nothing tells what it came from; probe again, then delete it") from error
    return command(workspace.root, "probe", networks, **flags)
