"""The bridge from stored activations to linear probes, one result a network.

Taps are probed one after the other, from examples that are read a minibatch at a time, every digest
verified. What was probed before, from the same activations in the same way, is read instead.
"""
