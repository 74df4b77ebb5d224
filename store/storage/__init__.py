"""Files in folders and at addresses: atomic writes, claims, remote errors."""
