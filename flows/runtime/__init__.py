"""Prefect's side of a flow: its server, logs, retries and artifacts."""
