"""Arrays in files that other programs wrote; nothing in them is ever executed."""
