"""Where Dask runs tasks, and what becomes of them there; only this package knows Dask."""
