"""Fixtures of attacks."""

from __future__ import annotations

import os

import pytest

from tests.adversary.hosts import HOSTS


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest) -> str:
    if request.param != "user" and os.geteuid() != 0:
        pytest.skip("needs root")
    return str(request.param)
