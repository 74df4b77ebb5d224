"""What Prefect would report of its use, it is told not to; and a user may allow it."""

import importlib
import os
import tomllib
from pathlib import Path

import pytest

import flows

WANTED = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
ALLOWED = {"DO_NOT_TRACK": "0", "PREFECT_SERVER_ANALYTICS_ENABLED": "true"}


def test_flows_and_commands_send_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WANTED:
        monkeypatch.delenv(name)
    importlib.reload(flows)
    assert {name: os.environ[name] for name in WANTED} == WANTED


def test_what_a_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ALLOWED.items():
        monkeypatch.setenv(name, value)
    importlib.reload(flows)
    assert {name: os.environ[name] for name in ALLOWED} == ALLOWED


def test_commands_of_prefect_in_this_folder_send_nothing() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["tool"]["prefect"]["server"] == {"analytics_enabled": False}
