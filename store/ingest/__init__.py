"""Activations of other programs, from arrays and files."""
