"""Orchestration: Prefect flows and the ``allcnn`` command line."""

import os

# Prefect reports its use to its makers unless these variables say otherwise, and reads them when it
# is imported: by a command, a worker that loads a flow, and the servers that both start. The values
# of a user's environment stay.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
