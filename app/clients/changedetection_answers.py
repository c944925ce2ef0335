"""Responses of changedetection.io: validated shapes, and refusals as our errors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from app.core import http
from app.core.errors import AppError, LimitReached, NotFound, Rejected, Unavailable

RETRY_S, MAX_RETRY_S = 5.0, 3600.0
_LATER = {408, 425}
T = TypeVar("T")


class RequestRefused(Rejected):
    """changedetection.io refused this request, and gave its reason."""

    code = "changedetection_rejected"


def _plain(value: Any) -> Any:
    """Return storable text: `false` and `null` become empty; NUL and lone surrogates are removed."""
    if value is None or value is False:
        return ""
    return value.replace("\0", "").encode(errors="replace").decode() if isinstance(value, str) else value


def _text_or_nothing(value: Any) -> Any:
    """Return text as _plain() does, and an empty text for a value of another type."""
    return _plain(value) if isinstance(value, str) else ""


Text = Annotated[str, BeforeValidator(_plain)]
LenientText = Annotated[str, BeforeValidator(_text_or_nothing)]
Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
# Epoch seconds, which are also the keys of snapshots; 0 means never.
Epoch = Annotated[int, Field(ge=0, le=10**11)]
Count = Annotated[int, Field(ge=0, le=10**9)]


@dataclass(frozen=True, slots=True)
class Watch:
    """One watched page. A field is None if the response omits it: lists have no `paused`, searches no `tags`.

    `url` may be a template or begin with `source:`; `link` is the address that changedetection.io reads.
    """

    uuid: Uuid
    url: Text
    link: LenientText = ""
    title: Text = ""
    page_title: Text = ""
    paused: bool | None = None
    last_changed: Epoch = 0
    last_checked: Epoch = 0
    last_error: Text = ""
    tags: tuple[Uuid, ...] | None = None
    history_n: Count | None = None


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    version: Text
    watch_count: Count
    tag_count: Count = 0
    queue_size: Count = 0


@dataclass(frozen=True, slots=True)
class CreatedId:
    uuid: Uuid


@dataclass(frozen=True, slots=True)
class WatchTag:
    title: Text = ""


CREATED, TAGS = TypeAdapter(CreatedId), TypeAdapter(dict[Uuid, WatchTag])
INSTANCE, WATCH, WATCHES = TypeAdapter(InstanceInfo), TypeAdapter(Watch), TypeAdapter(dict[Uuid, Watch])
HISTORY: TypeAdapter[dict[int, Any]] = TypeAdapter(dict[Epoch, Any])


def read(shape: TypeAdapter[T], value: Any) -> T:
    """Validate a response. Raises Rejected for another shape."""
    try:
        return shape.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise bad_response(f"{where or 'body'}: {first['msg']}") from error


def refusal(response: http.Response, body: bytes) -> AppError:
    """Return the error for an unsuccessful response.

    A 404 or 400 in another format comes from a proxy or a wrong URL, and says nothing about a watch.
    """
    status, (message, is_its_own) = response.status_code, _message_of(body)
    text = f"changedetection.io answers {status}: {message}"
    retry_after = response.headers.get("retry-after", "")
    retry_after_s = min(float(retry_after), MAX_RETRY_S) if retry_after.isdecimal() else None
    if status in (401, 403):
        text = f"changedetection.io refuses MILLRACE_CHANGEDETECTION_API_KEY: {message}"
        return Rejected(text, code="changedetection_key")
    if status == 404 and is_its_own:
        return NotFound(text, code="changedetection_missing")
    if status == 429 and retry_after_s is not None:  # sent by a proxy in front of it
        return LimitReached(text, retry_after_s, code="changedetection_busy")
    if status == 429:
        return Rejected(text, code="changedetection_limit")
    if status in _LATER or status >= 500:
        return Unavailable(text, code="changedetection_unavailable", retry_after_s=retry_after_s or RETRY_S)
    if 400 <= status < 500 and is_its_own:
        return RequestRefused(text)
    return bad_response(f"{status}: {message}")


def _message_of(body: bytes) -> tuple[str, bool]:
    """Return the message, and True if it has changedetection.io's format: a JSON string, or one under `message`."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return body[:200].decode(errors="replace") or "empty body", False
    message = value.get("message") if isinstance(value, dict) else value
    return (message[:500], True) if isinstance(message, str) else (str(value)[:200], False)


def bad_response(why: str) -> Rejected:
    text = f"the server at MILLRACE_CHANGEDETECTION_URL does not answer as changedetection.io: {why}"
    return Rejected(text, code="changedetection_answer")


def unavailable(why: str) -> Unavailable:
    return Unavailable(f"changedetection.io {why}", code="changedetection_unavailable", retry_after_s=RETRY_S)
