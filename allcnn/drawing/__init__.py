"""Pictures as Matplotlib figures: matrices, films of them, bars and curves."""
