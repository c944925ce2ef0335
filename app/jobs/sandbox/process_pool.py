"""The one pool of sandboxes of this process."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sequence

from app.core.errors import Interrupted
from app.core.settings import get_settings
from app.jobs.sandbox.pool import SandboxPool

PRELOAD = ("app.core.logging", "app.jobs.definition")

_pool: SandboxPool | None = None
_pool_lock = threading.Lock()


def start_pool(size: int | None = None, preload: Sequence[str] = PRELOAD) -> None:
    """Warm the sandboxes before the first call; `size` is by default the setting's.

    `preload` names modules that the fork server imports once for all sandboxes. None may start threads on import.
    Sandboxes that exist already stay as they are.
    """
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = SandboxPool(size or get_settings().sandbox_count, preload)
        _pool.warm()


def stop_pool() -> None:
    """Kill all sandboxes; calls under way raise Interrupted. A later call starts new ones."""
    global _pool
    with _pool_lock:
        pool, _pool = _pool, None
    if pool is not None:
        pool.stop()


def server_pid() -> int | None:
    """Return the pid of the fork server, for health pages; None while it does not run."""
    pool = _pool
    return pool.server_pid if pool is not None else None


def running_pool() -> SandboxPool:
    """Return the pool, started if need be. Raises Interrupted if it is stopped at the same moment."""
    pool = _pool
    if pool is None:
        start_pool()
        pool = _pool
    if pool is None:
        raise Interrupted("the sandboxes are being closed")
    return pool


def _forget_pool() -> None:
    global _pool, _pool_lock
    _pool_lock = threading.Lock()
    if _pool is not None:
        _pool.abandon()
        _pool = None


os.register_at_fork(after_in_child=_forget_pool)
atexit.register(stop_pool)
