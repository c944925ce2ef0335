"""Fixtures of all tests of sources."""

from tests.fakes.site import site

__all__ = ["site"]
