"""Lua scripts that Redis runs for the jobs: each is one atomic step on the keys of `app.core.redis`."""

from __future__ import annotations

from pathlib import Path

LUA = Path(__file__).parent
