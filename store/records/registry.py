"""The records that stores keep, by the kind of store."""

from typing import Any, Final

from store.records.probes import PROBES
from store.records.records import RecordForm
from store.records.results import RESULTS
from store.zarrfiles.layout import Kind

FORMS: Final[dict[Kind, RecordForm[Any]]] = {RESULTS.kind: RESULTS, PROBES.kind: PROBES}
