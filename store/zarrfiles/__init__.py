"""Zarr's own files: metadata, chunks, and where they lie."""
