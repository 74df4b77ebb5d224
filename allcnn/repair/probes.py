"""Which command computes a damaged probe again: it does so in the place of the damaged one."""

import shlex

from allcnn.errors import RunError
from allcnn.workspace import Workspace
from store import StoreError
from store.probes import PROBES
from store.records import read_facts


def command_for(workspace: Workspace, name: str) -> str:
    """Return the command that computes a probe again; raises RunError where it does not tell."""
    try:
        facts = read_facts(workspace.probes / name, PROBES) or {}
        job = facts["provenance"]["job"]
        flags = {
            "train-set": job["train_set"],
            "test-set": job["test_set"],
            "pool": job["pool"],
            "penalties": ",".join(map(str, job["penalties"])),
            "workspace": workspace.root,
        }
        networks = str(job["networks"])
    except (StoreError, KeyError, TypeError) as error:
        raise RunError("nothing tells what it came from; delete it and probe again") from error
    given = [f"--{flag} {shlex.quote(str(value))}" for flag, value in flags.items()]
    return " ".join(["allcnn probe", shlex.quote(networks), *given])
