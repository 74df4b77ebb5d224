"""The training loop, its compiled steps, and the recipe."""
