"""Fixtures of the command line's tests: an api in this process, and terminals that reach it over HTTP only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.api.conftest import Api, api, errand, lite_api
from tests.unit.cli.terminals import RemoteTerminal, Terminal

__all__ = ["api", "errand", "lite_api"]


@pytest.fixture
def terminal(lite_api: Api) -> Terminal:
    return Terminal(lite_api.url)


@pytest.fixture
def remote_terminal(tmp_path: Path) -> RemoteTerminal:
    return RemoteTerminal(tmp_path / "home")
