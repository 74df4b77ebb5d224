"""Errors of the stores: builtins too, and able to travel between processes."""

import pickle

import pytest

import store
from store import errors

BASES = (errors.ExplainedError, errors.StoreError)
ERRORS = [e for e in vars(errors).values() if isinstance(e, type) and e not in BASES]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_also_a_builtin(error):
    assert issubclass(error, errors.StoreError)
    bases = [base for base in error.__mro__ if base.__module__ == "builtins"]
    assert bases[0] not in (Exception, BaseException, object)


@pytest.mark.parametrize("error", [*ERRORS, errors.StoreError])
def test_pickling_keeps_type_fields_and_sentence(error):
    copy = pickle.loads(pickle.dumps(error("conv1", "is damaged", remedy="delete it")))
    assert type(copy) is error
    assert (copy.what, copy.found, copy.wanted, copy.remedy) == (
        "conv1", "is damaged", "", "delete it"
    )  # fmt: skip
    assert str(copy) == "conv1 is damaged; delete it"
    assert copy.finding == "conv1 is damaged"


def test_every_error_is_exported():
    assert {error.__name__ for error in ERRORS} <= set(store.__all__)
