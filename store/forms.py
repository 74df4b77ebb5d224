"""The records that stores keep, by the kind of store."""

from typing import Any, Final

from store.layout import Kind
from store.probes import PROBES
from store.records import RecordForm
from store.results import RESULTS

FORMS: Final[dict[Kind, RecordForm[Any]]] = {RESULTS.kind: RESULTS, PROBES.kind: PROBES}
