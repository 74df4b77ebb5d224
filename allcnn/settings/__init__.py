"""Settings of runs, extractions, comparisons and probes; imports nothing heavy."""
