"""Sandbox steps of tests; a light module, since every sandbox imports it."""

from __future__ import annotations

import time
from typing import Any


def nap(seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    return {"slept_s": seconds}
