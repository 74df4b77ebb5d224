"""Errors of the science: one sentence each, with the thing, what was found and what to do."""

from store.errors import ExplainedError


def in_one_line(error: object) -> str:
    """Return a message with its lines joined; within one, a name in a command keeps its spaces."""
    return " ".join(filter(None, map(str.strip, str(error).splitlines())))


class AllcnnError(ExplainedError):
    """Base of every error that a user can put right."""


class ConfigError(AllcnnError, ValueError):
    """A setting lies outside its range."""


class DatasetError(AllcnnError, LookupError):
    """A data set is unknown, not prepared, or cannot be fetched."""


class RunError(AllcnnError, LookupError):
    """A run or checkpoint is unknown, or exists with another configuration."""


class ComparisonError(AllcnnError, ValueError):
    """Two sets of representations cannot be compared."""


class ProbeError(AllcnnError, ValueError):
    """Linear classifiers cannot be trained from what is stored."""


class ClusterError(AllcnnError, RuntimeError):
    """Workers, or the scheduler that gives them tasks, are not there or are gone."""


class WorkspaceError(AllcnnError, OSError):
    """The workspace is no folder, or cannot be written."""


class ArchiveError(AllcnnError, ValueError):
    """A file is no exported run, is damaged, or does not fit the workspace that it goes to."""
