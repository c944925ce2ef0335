"""Moves the clock of the process that imports it, by MILLRACE_MODULES, so many seconds on."""

from __future__ import annotations

import os
from datetime import timedelta

from app.core import clock

clock.shift(timedelta(seconds=float(os.environ.get("TESTS_CLOCK_JUMP_S", "0"))))
