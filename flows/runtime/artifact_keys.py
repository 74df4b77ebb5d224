"""Names as Prefect wants them for artifacts."""

import re


def key(name: str) -> str:
    """Return a name as Prefect wants the keys of artifacts: small letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
