"""A comparison as a process of its own: ``python -m tests.comparing ROOT CLUSTER LIMITS``.

Compares all that is stored below a root, and says what it is told, each after so many seconds. An
error that a user would be shown ends it with status 1 and the sentence.
"""

# ruff: noqa: T201 - says what it is told

import json
import sys
import time

from allcnn.cluster import cluster as clusters
from allcnn.cluster.spec import ClusterSpec
from allcnn.compare import compare
from allcnn.errors import ClusterError
from allcnn.workspace.paths import Workspace
from tests.networks import ALL, job

BATCH = 512


def main(root: str, where: str, limits: str) -> None:
    """Compare, with limits as JSON, such as ``{"silent_s": 4}``."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:.1f} s: {text}", flush=True)

    for name, seconds in json.loads(limits).items():
        setattr(clusters, name.upper(), seconds)
    try:
        with clusters.Cluster(ClusterSpec.parse(where), say) as cluster:
            compare(Workspace.at(root), job(ALL, ALL, batch_size=BATCH), cluster=cluster)
            say("compared")
    except ClusterError as error:
        say(str(error))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main(*sys.argv[1:])
