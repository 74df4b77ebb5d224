"""The report on a workspace: a folder with a page to explore that opens from the disk."""

from flows.reporting.facts import check_there
from flows.reporting.page import write_report

__all__ = ["check_there", "write_report"]
