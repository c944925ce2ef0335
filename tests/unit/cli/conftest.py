"""An api in the tests' own process, and commands that reach it over HTTP alone."""

from __future__ import annotations

from tests.unit.api.conftest import errand, lite_api

__all__ = ["errand", "lite_api"]
