"""Show results in Prefect: the pictures and tables of a flow run."""

import base64
import re

import numpy as np
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from allcnn.compare import SimilarityResult, describe
from allcnn.workspace.paths import Workspace
from flows.views.tables import MOST_COLUMNS
from store import ProbeResult
from store.storage.paths import Place, read_bytes


def key(name: str) -> str:
    """Return a name as Prefect wants the keys of artifacts: small letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def show_picture(path: Place, description: str) -> None:
    """Attach a PNG to the flow run; embedded, for the server may not see the workspace."""
    data = base64.b64encode(read_bytes(path)).decode("ascii")
    create_image_artifact(f"data:image/png;base64,{data}", key(path.stem), description)


def show_result(workspace: Workspace, result: SimilarityResult) -> None:
    """Attach the numbers of a matrix to the flow run, the last layer first, and how it is read.

    For a matrix too wide for a page, which its picture shows, say where the numbers are.
    """
    rows, columns = describe.side(result.rows), describe.side(result.columns)
    how = describe.method(result)
    title = f"{result.title}: rows {rows.label}, columns {columns.label}; {how}"
    if len(columns.names) > MOST_COLUMNS:
        size = f"{len(rows.names)} x {len(columns.names)}"
        title += f"\n\nThe {size} numbers are in the stored result"
        table = [{"result": result.name}]
    else:
        table = [
            {"tap": row} | dict(zip(columns.full_names, map(_rounded, values), strict=True))
            for row, values in reversed(list(zip(rows.full_names, result.values, strict=True)))
        ]
        title += "".join(f"\n\nempty: {reason}" for _, _, reason in result.reasons)
    create_table_artifact(table, f"{key(result.name)}-numbers", title)
    call = f"store.read_result({str(workspace.similarity)!r}, {result.name!r})"
    _show_code(call, f"{key(result.name)}-result", how)


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
    call = f"store.read_probe({str(workspace.probes)!r}, {probe.name!r})"
    _show_code(call, f"{key(probe.name)}-result", title)


def show_report(page: Place, workspace: str) -> str:
    """Attach where the report on a workspace is to the flow run, and return that."""
    _show_code(
        str(page),
        f"report-{key(workspace)}",
        "The report: open it in a browser where this folder is",
    )
    return str(page)


def _show_code(text: str, name: str, description: str) -> None:
    """Attach what is to be copied; browsers follow no link from a page of a server to a file."""
    create_markdown_artifact(f"```\n{text}\n```", name, description)


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
