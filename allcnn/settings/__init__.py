"""What is asked for: settings of runs, extractions, comparisons, probes; nothing heavy."""
