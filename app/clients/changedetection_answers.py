"""What changedetection.io answers: shapes that are checked before anybody uses them, and refusals in our words."""

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


def _plain(said: Any) -> Any:
    """`false` and `null` stand for no text; no database takes a NUL or half a character."""
    if said is None or said is False:
        return ""
    return said.replace("\0", "").encode(errors="replace").decode() if isinstance(said, str) else said


Text = Annotated[str, BeforeValidator(_plain)]
Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
# Seconds since 1970, which are also the keys of snapshots; 0 for never.
Epoch = Annotated[int, Field(ge=0, le=10**11)]
Count = Annotated[int, Field(ge=0, le=10**9)]


@dataclass(frozen=True, slots=True)
class Watch:
    """One watched page; None where an answer does not tell: lists have no `paused`, a search no `tags`."""

    uuid: Uuid
    url: Text
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


def read(shape: TypeAdapter[T], said: Any) -> T:
    try:
        return shape.validate_python(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise bad_response(f"{where or 'the whole'}: {first['msg']}") from error


def refusal(answer: http.Response, body: bytes) -> AppError:
    """A 404 or 400 in words that are not its own (a wrong address, a proxy) says nothing of a watch."""
    status, (said, is_its_own) = answer.status_code, _said(body)
    text = f"changedetection.io answers {status}: {said}"
    told = answer.headers.get("retry-after", "")
    patience_s = min(float(told), MAX_RETRY_S) if told.isdecimal() else None
    if status in (401, 403):
        text = f"changedetection.io refuses MILLRACE_CHANGEDETECTION_API_KEY: {said}"
        return Rejected(text, code="changedetection_key")
    if status == 404 and is_its_own:
        return NotFound(text, code="changedetection_missing")
    if status == 429 and patience_s is not None:  # of a proxy before it
        return LimitReached(text, patience_s, code="changedetection_busy")
    if status == 429:
        return Rejected(text, code="changedetection_limit")
    if status in _LATER or status >= 500:
        return Unavailable(text, code="changedetection_unavailable", retry_after_s=patience_s or RETRY_S)
    if 400 <= status < 500 and is_its_own:
        return Rejected(text, code="changedetection_rejected")
    return bad_response(f"{status}: {said}")


def _said(body: bytes) -> tuple[str, bool]:
    """Its own words, and whether they are: a JSON string, or one under `message`."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return body[:200].decode(errors="replace") or "nothing", False
    words = said.get("message") if isinstance(said, dict) else said
    return (words[:500], True) if isinstance(words, str) else (str(said)[:200], False)


def bad_response(what: str) -> Rejected:
    text = f"what answers at MILLRACE_CHANGEDETECTION_URL is no changedetection.io, or a broken one: {what}"
    return Rejected(text, code="changedetection_answer")


def unavailable(what: str) -> Unavailable:
    return Unavailable(f"changedetection.io {what}", code="changedetection_unavailable", retry_after_s=RETRY_S)
