"""Results of comparisons and probes, one Zarr group each."""
