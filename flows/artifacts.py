"""What a flow run shows of its results in Prefect: pictures and tables."""

import base64
import re
from pathlib import Path

import numpy as np
from prefect.artifacts import create_image_artifact, create_table_artifact

from allcnn.compare import SimilarityResult, network_of


def show_picture(path: Path, description: str) -> None:
    """Attach a PNG to the flow run; embedded, for the server may not see the workspace."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    create_image_artifact(f"data:image/png;base64,{data}", key(path.stem), description)


def show_matrix(result: SimilarityResult) -> None:
    """Attach the numbers of a CKA matrix to the flow run, the last layer first."""
    columns = [key.tap for key in result.columns]
    table = [
        {"tap": row.tap} | dict(zip(columns, map(_rounded, values), strict=True))
        for row, values in reversed(list(zip(result.rows, result.cka, strict=True)))
    ]
    title = f"CKA of {network_of(result.rows[0])} with {network_of(result.columns[0])}"
    create_table_artifact(table, f"{key(result.name)}-numbers", title)


def key(name: str) -> str:
    """Return a name as Prefect wants the keys of artifacts: small letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
