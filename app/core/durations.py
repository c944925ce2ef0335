"""Durations that a caller or foreign code supplied, in seconds."""

from __future__ import annotations

import math
from numbers import Real

# Used where an error asks for a later try and gives no usable delay.
FALLBACK_RETRY_S = 60.0


def seconds_or_none(value: object) -> float | None:
    """Return the seconds, at least 0; None if the value is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    seconds = float(value)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def require_seconds(value: object, name: str) -> float:
    """Return the seconds, at least 0. Raises TypeError if the value is not a finite number."""
    seconds = seconds_or_none(value)
    if seconds is None:
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    return seconds
