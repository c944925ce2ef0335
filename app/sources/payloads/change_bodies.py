"""Parse notifications of changedetection.io: our template, the older service's, Apprise's envelope, or plain text.

Only the watch id is trusted: the page is fetched again, and where possible the watch is read too.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from app.core import clock
from app.core.errors import Unauthenticated
from app.core.settings import get_settings
from app.documents.text import clean_line, scrub_text
from app.sources.payloads.change_times import parse_time
from app.sources.payloads.errors import InvalidPayload

MAX_SUMMARY_CHARACTERS = 500
MAX_URL_CHARACTERS = 2000
# Equal messages without a key are repeats only within this time: the next change may have the same text.
REPEAT_WINDOW_S = 600
_URL = re.compile(r"https?://[^\s<>\"']+")
# changedetection.io's mark of watches whose HTML source is compared.
_SOURCE = re.compile(r"\s*source:", re.IGNORECASE)
# Macros of the template language in which changedetection.io writes the URL of a watch.
_MACRO = re.compile(r"\{[{%#]")
# Contents of test notifications: the names that stand for a watch, the default texts, and the text of a made-up change.
_PLACEHOLDER_HOST = "watch-place-holder"
_PLACEHOLDER_UUID = "XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX"
_TEST_TITLE, _TEST_BODY = "test title", re.compile(r"(test title\s+)?test body", re.IGNORECASE)
_TEST_DIFF = "Example text: change detection is "
_TEST_EVENTS = ("test", "ping", "watch.test")
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
    """A change of a page. `history_key` is the time of the snapshot in epoch seconds, its key at changedetection.io.

    `is_test` marks a test notification, which reports no change; its URL may be empty.
    """

    url: str
    watch_id: str | None
    history_key: int | None
    detected_at: datetime
    title: str | None
    diff: str
    diff_url: str | None
    digest: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    is_test: bool = False

    @property
    def type(self) -> str:
        return "watch.test" if self.is_test else "watch.changed"

    @property
    def run_id(self) -> str | None:
        return None

    @property
    def key(self) -> str:
        if self.watch_id is not None and self.history_key is not None and not self.is_test:
            return f"{self.watch_id}:{self.history_key}"
        return f"{self.digest}:{int(clock.now().timestamp()) // REPEAT_WINDOW_S}"


def parse(raw: bytes) -> PageChange:
    """Parse a notification. Raises InvalidPayload if it names no page or has an invalid time."""
    fields = _fields_of(raw)
    values = {name: _first(fields, keys) for name, keys in _NAMES.items()}
    url = strip_source(values["url"]) if values["url"] else _find_url(fields)
    digest = hashlib.sha256(raw).hexdigest()
    if _is_test(fields, values, url):
        return PageChange("", None, None, clock.now(), None, "", None, digest, is_test=True)
    if url is None:
        raise _invalid("watch_url is missing, so the changed page is unknown")
    if not is_page_url(url):
        raise _invalid(f"watch_url: {url[:100]!r} is not an http or https URL of up to {MAX_URL_CHARACTERS} characters")
    key = values["history_key"]
    if key is not None and not (key.isascii() and key.isdecimal() and len(key) <= 12):
        raise _invalid(f"history_key: {key[:40]!r} is not a number of seconds")
    return PageChange(
        url=url,
        watch_id=clean_line(values["watch_id"], 255),
        history_key=int(key) if key else None,
        detected_at=_time_of(values["detected"], key),
        title=clean_line(values["title"], 500),
        diff=(values["diff"] or "")[:MAX_SUMMARY_CHARACTERS],
        diff_url=clean_line(values["diff_url"], 2000),
        digest=digest,
        extra={"diff_size": len(values["diff"] or ""), "tags": clean_line(_first(fields, ("tags",)))},
    )


def strip_source(url: str) -> str:
    """Return the URL without `source:`, by which changedetection.io marks a watch of the page's source."""
    return _SOURCE.sub("", url).strip()


def is_template(url: str) -> bool:
    """Return True if the URL has macros that only changedetection.io can expand."""
    return _MACRO.search(url) is not None


def _is_test(fields: dict[str, Any], values: dict[str, str | None], url: str | None) -> bool:
    """Return True for a test notification: a placeholder, the default texts, or the text of a made-up change."""
    event = _first(fields, ("event", "type"))
    if fields.get("test") is True or (event is not None and event.lower() in _TEST_EVENTS):
        return True
    if values["watch_id"] == _PLACEHOLDER_UUID or (url is not None and _PLACEHOLDER_HOST in url.lower()):
        return True
    texts = [value for name in (*_NAMES["diff"], "body") if isinstance(value := fields.get(name), str)]
    if any(_TEST_DIFF in text for text in texts):
        return True
    title = (_first(fields, ("title",)) or "").lower()
    has_test_body = any(_TEST_BODY.fullmatch(text.strip()) for text in texts)
    return values["url"] is None and (has_test_body or (url is None and title == _TEST_TITLE))


def is_page_url(url: str) -> bool:
    """Return True for an http or https URL with a host and of a usual length."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and len(url) <= MAX_URL_CHARACTERS
    except ValueError:
        return False


def _fields_of(raw: bytes) -> dict[str, Any]:
    """Return the body's fields: of JSON, of a form, or a plain text as `message`."""
    text = raw.decode("utf-8", "replace").strip()
    if not text:
        raise _invalid("the body is empty")
    body = _json(text)
    if isinstance(body, dict):
        return _unwrap(body)
    if body is not None:
        raise _invalid("the body must be a JSON object")
    if re.match(r"(version|title|message|type|payload)=", text):
        try:
            form = parse_qs(text, max_num_fields=50)
        except ValueError:  # a text that only begins like a form
            return {"message": text}
        return _unwrap({name: values[0] for name, values in form.items()})
    return {"message": text}


def _unwrap(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields inside Apprise's envelope, where they are the text of one field, merged over the outer ones."""
    for name in ("payload", "message"):
        inner = _json(fields[name]) if isinstance(fields.get(name), str) else fields.get(name)
        if isinstance(inner, dict):
            return {key: value for key, value in fields.items() if key not in (name, "title", "type")} | inner
    return fields


def _json(text: str) -> Any:
    """Return the JSON object or array, or None for any other text."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _first(fields: dict[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = fields.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        text = scrub_text(str(value)).strip()
        if text:
            return text
    return None


def _find_url(fields: dict[str, Any]) -> str | None:
    """Return the first URL in the title, or else in the message, where changedetection.io's own texts have it."""
    for name in ("title", "message"):
        value = fields.get(name)
        match = _URL.search(scrub_text(value)) if isinstance(value, str) else None
        if match is not None:
            return match[0].rstrip(".,;:)")
    return None


def _time_of(text: str | None, key: str | None) -> datetime:
    """Return the time of detection, else that of the snapshot, else now. Raises InvalidPayload."""
    if text is None and key is None:
        return clock.now()
    try:
        return parse_time(str(text or key))
    except ValueError as error:
        raise _invalid(f"detected_at: {str(text or key)[:60]!r} is not a time") from error


def _invalid(why: str) -> InvalidPayload:
    return InvalidPayload(f"Invalid payload: {why}")
