"""Data at rest: activation stores and similarity results in Zarr."""
