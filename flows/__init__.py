"""Orchestration: Prefect flows and the ``allcnn`` command line."""

import os

# Prefect reports its use to its makers unless these say otherwise, and reads them when it is
# imported: by a command, by a worker that loads a flow, and by the servers that both start. What a
# user has set in the environment stays.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
