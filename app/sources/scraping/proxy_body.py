"""Checks of bodies that are passed on to Firecrawl, which can reach addresses in our network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from app.core.errors import InvalidInput, Unsupported
from app.core.network.guard import is_private_by_name
from app.core.settings import get_settings

# Subtrees without addresses that Firecrawl opens: a schema for extraction, and headers for the pages.
_NOT_ADDRESSES = {"schema", "headers"}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(?!\d)", re.IGNORECASE)
_BLANKS = "".join(map(chr, range(33)))


def check_body(body: bytes, content_types: Sequence[str], content_encodings: Sequence[str]) -> None:
    """Check a body: what is read here must be what Firecrawl reads.

    Raises Unsupported for another type or charset, InvalidInput for a body that is not a JSON object, and for an
    address in it that is private or not http(s).
    """
    if not body:
        return
    for value in content_types:
        header = Message()
        header["content-type"] = value
        if header.get_content_type() != "application/json" or header.get_content_charset("utf-8") != "utf-8":
            raise Unsupported("Content-Type must be application/json in UTF-8", code="unsupported_media_type")
    if any(value.strip().lower() != "identity" for value in content_encodings):
        raise Unsupported("the body must not be compressed", code="unsupported_media_type")
    try:
        value = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the body must be a JSON object in UTF-8", code="json") from error
    if not isinstance(value, dict):
        raise InvalidInput("the body must be a JSON object", code="json")
    for name, address, is_webhook in _addresses(value):
        _check(name, address, is_webhook=is_webhook)


def _addresses(value: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Yield the texts in fields for addresses, at any depth, with the field's name; True for a webhook."""
    waiting: list[tuple[str, Any, bool]] = [("", value, False)]
    while waiting:
        name, item, is_webhook = waiting.pop()
        if isinstance(item, dict):
            waiting += [
                (key, inner, is_webhook or key == "webhook")
                for key, inner in item.items()
                if key.lower() not in _NOT_ADDRESSES
            ]
        elif isinstance(item, list):
            waiting += [(name, inner, is_webhook) for inner in item]
        elif isinstance(item, str) and name.lower().endswith(("url", "urls", "webhook")):
            yield name, item, is_webhook


def _check(name: str, address: str, *, is_webhook: bool) -> None:
    text = re.sub(r"[\t\r\n]", "", address.strip(_BLANKS))  # as an address is read by WHATWG's rules
    match = _SCHEME.match(text)
    if match is not None and match[1].lower() not in ("http", "https"):
        raise InvalidInput(f"{name}: only http:// and https:// addresses are passed on", code="url_scheme")
    full = text if match is not None else f"http://{text}"  # as Firecrawl completes it
    if is_private_by_name(full) and not (is_webhook and _is_ours(full)):
        raise InvalidInput(f"{name}: {address[:200]} is not on the public internet", code="private_address")


def _is_ours(url: str) -> bool:
    """Return True for an address of this installation, which takes Firecrawl's events."""
    settings = get_settings()
    own = {_origin(known) for known in (settings.url, settings.changedetection_notify_url) if known}
    return _origin(url) in own


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()
