"""Depth of JSON values: how far objects and arrays lie in each other."""

from __future__ import annotations

import json
from typing import Any

# The serializers of answers give up at 255 levels; stored values stay well below.
MAX_DEPTH = 100


def is_deeper(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Return True if objects and arrays lie in each other on more than `levels` levels. A scalar has none."""
    level = [value]
    for _ in range(levels + 1):
        level = [item for item in level if isinstance(item, dict | list | tuple)]
        if not level:
            return False
        level = [item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer)]
    return True


def loads_finite(text: str) -> Any:
    """Parse JSON text. Raises ValueError also for NaN and infinities, which JSON lacks and Python accepts."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
