"""Verification, removal and usage of stores."""
