"""What a job returned, as its row can keep it."""

from __future__ import annotations

import json
from typing import Any

from app.core.errors import InvalidInput

LARGEST_RESULT_BYTES = 64 * 1024


def checked_result(result: Any) -> dict[str, Any] | None:
    """What a job returned, as its row can keep it. Raises InvalidInput for no dictionary, no JSON, too much of it."""
    if result is None:
        return None
    if not isinstance(result, dict):
        raise InvalidInput(f"a job returns a dictionary or nothing, not {type(result).__name__}", code="result")
    try:
        size = len(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the job's result is not JSON: {error}", code="result") from error
    if size > LARGEST_RESULT_BYTES:
        raise InvalidInput(f"a result may have {LARGEST_RESULT_BYTES} bytes, this has {size}", code="result_size")
    return result
