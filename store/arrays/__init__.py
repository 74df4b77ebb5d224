"""Activations and Gram matrices, written and read a minibatch at a time."""
