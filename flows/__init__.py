"""Orchestration: Prefect flows and the ``allcnn`` command line."""
