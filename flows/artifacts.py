"""What a flow run shows of its results in Prefect: pictures and tables."""

import base64
from pathlib import Path

import numpy as np
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_table_artifact,
)

from allcnn import figures
from allcnn.compare import SimilarityResult
from allcnn.workspace import Workspace
from flows.keys import key
from flows.tables import MOST_COLUMNS
from store import ProbeResult
from store.place import Place, read_bytes


def show_picture(path: Place, description: str) -> None:
    """Attach a PNG to the flow run; embedded, for the server may not see the workspace."""
    data = base64.b64encode(read_bytes(path)).decode("ascii")
    create_image_artifact(f"data:image/png;base64,{data}", key(path.stem), description)


def show_matrix(result: SimilarityResult) -> None:
    """Attach the numbers of a CKA matrix to the flow run, the last layer first.

    Of a matrix too wide for a page, which its picture shows, only where the numbers are.
    """
    rows, columns = figures.side(result.rows), figures.side(result.columns)
    title = f"CKA: rows {rows.label}, columns {columns.label}; {figures.method(result)}"
    if len(columns.names) > MOST_COLUMNS:
        title += (
            f"\n\nThe {len(rows.names)} x {len(columns.names)} numbers are in the stored result"
        )
        create_table_artifact([{"result": result.name}], f"{key(result.name)}-numbers", title)
        return
    table = [
        {"tap": row} | dict(zip(columns.full_names, map(_rounded, values), strict=True))
        for row, values in reversed(list(zip(rows.full_names, result.cka, strict=True)))
    ]
    reasons = (f"\n\nempty: {reason}" for _, _, reason in result.reasons)
    create_table_artifact(table, f"{key(result.name)}-numbers", title + "".join(reasons))


def show_link(workspace: Workspace, result: SimilarityResult) -> None:
    """Attach the address of a stored result to the flow run; files open where they are alone."""
    address = _address(workspace.similarity / result.name)
    described = f"{figures.method(result)}; read it with store.read_result"
    create_link_artifact(address, result.name, f"{key(result.name)}-result", described)


def show_probe(workspace: Workspace, probe: ProbeResult) -> None:
    """Attach how well each tap is classified to the flow run, and where that is stored."""
    table = [
        {
            "tap": of.tap,
            "accuracy": _rounded(accuracy),
            "standard error": _rounded(error),
            "training accuracy": _rounded(trained),
        }
        for of, accuracy, error, trained in zip(
            probe.taps, probe.accuracy, probe.standard_errors, probe.train_accuracy, strict=True
        )
    ]
    network = f"{probe.taps[0].run}@{probe.taps[0].checkpoint}"
    title = (
        f"Linear probes of {network}: trained on {probe.train_set}, {probe.n_test} test examples"
    )
    create_table_artifact(table, f"{key(probe.name)}-numbers", title)
    address = _address(workspace.probes / probe.name)
    create_link_artifact(address, probe.name, f"{key(probe.name)}-result", "store.read_probe")


def show_report(page: Place, workspace: str) -> str:
    """Attach the address of the report on a workspace to the flow run, and return it."""
    create_link_artifact(_address(page), "the report", f"report-{key(workspace)}")
    return _address(page)


def _address(place: Place) -> str:
    return place.as_uri() if isinstance(place, Path) else str(place)


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
