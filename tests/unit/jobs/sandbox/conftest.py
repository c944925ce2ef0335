"""Two warm sandboxes for a module, or one; threads to call from."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.jobs.sandbox import process_pool
from tests.support.sandbox_rig import HERE, SECRETS


@pytest.fixture(scope="module", autouse=True)
def _pool() -> Iterator[None]:
    """Two sandboxes, started while the environment holds secrets."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        process_pool.stop_pool()
        process_pool.start_pool(2, preload=[HERE])
    yield
    process_pool.stop_pool()


@pytest.fixture
def one_sandbox() -> Iterator[None]:
    """One sandbox alone, so that each call finds the one before it."""
    process_pool.stop_pool()
    process_pool.start_pool(1, preload=[HERE])
    yield
    process_pool.stop_pool()
    process_pool.start_pool(2, preload=[HERE])


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor
