"""Settings of whole pipelines and nightly runs, and the flows' parameters."""
