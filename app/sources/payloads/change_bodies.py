"""What changedetection.io can really send of a change: our template, the older service's, Apprise's envelope, or text.

Nothing in it is believed but which watch it is about: the page is read again, and the watch too where that can be.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from app.core import clock
from app.core.errors import InvalidInput, Unauthenticated
from app.core.settings import get_settings
from app.documents.text import clean_line, scrub_text

SUMMARY_CHARACTERS = 500
# A message without a key is the same delivery again only for so long: the next change may read the same.
SAME_FOR_S = 600
_URL = re.compile(r"https?://[^\s<>\"']+")
_NAMES = {
    "watch_id": ("watch_uuid", "watch_id", "watch", "uuid"),
    "url": ("watch_url", "url"),
    "title": ("watch_title", "title"),
    "detected": ("detected_at", "changed_at"),
    "diff": ("diff", "snapshot", "message"),
    "diff_url": ("diff_url",),
    "history_key": ("history_key",),
}


def webhook_token() -> str:
    """Return the token that notifications carry, because changedetection.io cannot sign them.

    Derived from MILLRACE_WEBHOOK_SECRET one way: the token is readable in each watch, the secret is not. Raises
    Unauthenticated without a secret.
    """
    secret = get_settings().webhook_secret.get_secret_value()
    if not secret:
        raise Unauthenticated("webhooks are not set up here: MILLRACE_WEBHOOK_SECRET")
    return hmac.new(secret.encode(), b"changedetection", hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class PageChange:
    """`history_key`: when the snapshot was taken, in seconds since 1970, by which changedetection.io names it."""

    url: str
    watch_id: str | None
    history_key: int | None
    detected_at: datetime
    title: str | None
    diff: str
    diff_url: str | None
    digest: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    type = "watch.changed"

    @property
    def run(self) -> str | None:
        return None

    @property
    def key(self) -> str:
        if self.watch_id is not None and self.history_key is not None:
            return f"{self.watch_id}:{self.history_key}"
        return f"{self.digest}:{int(clock.now().timestamp()) // SAME_FOR_S}"


def parse(raw: bytes) -> PageChange:
    """Raises InvalidInput for what names no page, or a time that is none."""
    said = _said(raw)
    found = {name: _first(said, keys) for name, keys in _NAMES.items()}
    url = found["url"] or _url_in(said)
    if url is None:
        raise _invalid("no watch_url: it does not say which page has changed")
    if urlsplit_or_none(url) is None:
        raise _invalid(f"watch_url: {url[:100]!r} is no address of a page")
    key = found["history_key"]
    if key is not None and not (key.isascii() and key.isdecimal() and len(key) <= 12):
        raise _invalid(f"history_key: {key[:40]!r} is no number of seconds")
    return PageChange(
        url=url,
        watch_id=clean_line(found["watch_id"], 255),
        history_key=int(key) if key else None,
        detected_at=_moment(found["detected"], key),
        title=clean_line(found["title"], 500),
        diff=(found["diff"] or "")[:SUMMARY_CHARACTERS],
        diff_url=clean_line(found["diff_url"], 2000),
        digest=hashlib.sha256(raw).hexdigest(),
        extra={"diff_size": len(found["diff"] or ""), "tags": clean_line(_first(said, ("tags",)))},
    )


def urlsplit_or_none(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        return url if parts.scheme in ("http", "https") and parts.hostname and len(url) <= 2000 else None
    except ValueError:
        return None


def _said(raw: bytes) -> dict[str, Any]:
    """The body as names and values: JSON, a form, or a text that stands for itself."""
    text = raw.decode("utf-8", "replace").strip()
    if not text:
        raise _invalid("the body is empty")
    said = _json(text)
    if isinstance(said, dict):
        return _unwrapped(said)
    if said is not None:
        raise _invalid("the body is no JSON object")
    if re.match(r"(version|title|message|type|payload)=", text):
        try:
            form = parse_qs(text, max_num_fields=50)
        except ValueError:  # a text that only begins like a form
            return {"message": text}
        return _unwrapped({name: values[0] for name, values in form.items()})
    return {"message": text}


def _unwrapped(said: dict[str, Any]) -> dict[str, Any]:
    """What lies inside Apprise's envelope as the text of a field, over what is outside."""
    for name in ("payload", "message"):
        inner = _json(said[name]) if isinstance(said.get(name), str) else said.get(name)
        if isinstance(inner, dict):
            return {key: value for key, value in said.items() if key not in (name, "title", "type")} | inner
    return said


def _json(text: str) -> Any:
    """None for what is no JSON; a lone word or number is none either."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _first(said: dict[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = said.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int):
            continue
        text = scrub_text(str(value)).strip()
        if text:
            return text
    return None


def _url_in(said: dict[str, Any]) -> str | None:
    """The first address that the title names, else the message: how the product's own texts begin."""
    for name in ("title", "message"):
        value = said.get(name)
        match = _URL.search(scrub_text(value)) if isinstance(value, str) else None
        if match is not None:
            return match[0].rstrip(".,;:)")
    return None


def _moment(text: str | None, key: str | None) -> datetime:
    """When it was detected; an ISO time without a zone is UTC. Raises InvalidInput."""
    try:
        if text is not None:
            found = datetime.fromisoformat(text)
            return (found.replace(tzinfo=UTC) if found.tzinfo is None else found).astimezone(UTC)
        if key is not None:
            return datetime.fromtimestamp(int(key), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise _invalid(f"detected_at: {str(text or key)[:60]!r} is no time") from error
    return clock.now()


def _invalid(why: str) -> InvalidInput:
    return InvalidInput(f"Invalid payload: {why}", code="webhook_payload")
