"""Runs on disk: names, records, checkpoints, locks and export."""
