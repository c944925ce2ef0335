"""Checks of a job's result before its row stores it."""

from __future__ import annotations

import json
from typing import Any

from app.core.errors import InvalidInput
from app.core.nesting import MAX_DEPTH, is_deeper

MAX_RESULT_BYTES = 64 * 1024


def check_result(result: Any) -> dict[str, Any] | None:
    """Return the result if a row can store it. Raises InvalidInput if it is not a dictionary, not JSON, or large."""
    if result is None:
        return None
    if not isinstance(result, dict):
        raise InvalidInput(f"a job must return a dictionary or None, not {type(result).__name__}", code="result")
    if is_deeper(result):
        raise InvalidInput(f"the job's result is nested more than {MAX_DEPTH} levels deep", code="result_depth")
    try:
        size = len(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the job's result is not JSON: {error}", code="result") from error
    if size > MAX_RESULT_BYTES:
        raise InvalidInput(f"a result may have {MAX_RESULT_BYTES} bytes, this has {size}", code="result_size")
    return result
