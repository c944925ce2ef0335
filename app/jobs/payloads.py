"""The stored form of a payload: JSON that the job's definition can load again."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import PydanticSerializationError

from app.core.errors import InvalidInput
from app.core.nesting import MAX_DEPTH, is_deeper, loads_finite
from app.jobs.definition import Job

MAX_PAYLOAD_BYTES = 256 * 1024


def payload_json(job: Job) -> str:
    """Return the payload as JSON for its row, by field names.

    Raises InvalidInput if a row cannot store it or the definition could not load it again.
    """
    try:
        payload = job.model_dump_json(by_alias=False, round_trip=True)
    except (PydanticSerializationError, ValueError) as error:  # half a surrogate pair, for example
        if "depth exceeded" in str(error):
            raise _too_deep(job) from error
        raise InvalidInput(f"{job.kind}: the payload cannot be written as JSON: {error}", code="payload") from error
    size = len(payload) if payload.isascii() else len(payload.encode())
    if size > MAX_PAYLOAD_BYTES:
        limit = MAX_PAYLOAD_BYTES
        raise InvalidInput(f"{job.kind}: a payload may have {limit} bytes, this has {size}", code="payload_size")
    if "\\u0000" in payload.replace("\\\\", ""):  # an escaped NUL, not a backslash in the text
        raise InvalidInput(f"{job.kind}: the payload has a NUL character", code="payload")
    _check_readable(job, payload)
    return payload


def payload_dict(job: Job) -> dict[str, Any]:
    """Return the payload as a row stores it. Raises InvalidInput like payload_json."""
    payload: dict[str, Any] = json.loads(payload_json(job))
    return payload


def _check_readable(job: Job, payload: str) -> None:
    """Raise InvalidInput if the stored payload could not be read again.

    Most kinds need no check of values: their fields have one JSON form, which was proven when they were declared.
    """
    if "NaN" in payload or "Infinity" in payload:
        try:
            loads_finite(payload)
        except ValueError as error:
            raise InvalidInput(f"{job.kind}: the payload cannot be stored: {error}", code="payload") from error
    if payload.count("{") + payload.count("[") > MAX_DEPTH and is_deeper(json.loads(payload)):
        raise _too_deep(job)
    if job.stored_form.needs_check:
        job.load(json.loads(payload), job.payload_version)


def _too_deep(job: Job) -> InvalidInput:
    return InvalidInput(f"{job.kind}: the payload is nested more than {MAX_DEPTH} levels deep", code="payload_depth")
