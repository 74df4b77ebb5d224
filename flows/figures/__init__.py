"""Published figures from what is stored: one function each, which returns a figure or a film."""
