"""Verify, repair and remove what is stored."""
