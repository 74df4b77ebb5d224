"""Bring a workspace up to date as the nightly flow does, in steps that can be killed."""
