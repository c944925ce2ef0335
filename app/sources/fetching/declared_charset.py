"""Find the charset that an HTML page declares, which some pages do only after a long head."""

from __future__ import annotations

import re

from app.core import charsets

# Declarations further on are not looked for.
MAX_SEARCHED_BYTES = 1024 * 1024
_TOKEN = re.compile(rb"<!--|<script\b|<style\b|<meta\b[^>]*>?", re.IGNORECASE)
_ENDS = {b"<!--": b"-->", b"<script": b"</script", b"<style": b"</style"}
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]+)", re.IGNORECASE)
_NAMED = re.compile(rb"\b(?:name|property|itemprop)\s*=", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml\b[^>]{0,200}?\bencoding\s*=\s*[\"']([A-Za-z0-9_:.-]+)", re.IGNORECASE)


def declared_charset(body: bytes) -> str | None:
    """Return the first known charset in a `meta` element or the XML declaration; None without one.

    Comments and scripts do not count. A page whose ASCII bytes can be read is not in UTF-16, whatever it declares.
    """
    head = body[:MAX_SEARCHED_BYTES]
    match = _XML.match(head)
    label = _known(match[1]) if match else None
    if label is not None:
        return label
    lowered, position = head.lower(), 0
    while (token := _TOKEN.search(head, position)) is not None:
        position = token.end()
        end = _ENDS.get(token[0].lower())
        if end is not None:
            position = lowered.find(end, position)
            if position < 0:
                return None
            continue
        charset = None if _NAMED.search(token[0]) else _CHARSET.search(token[0])
        label = _known(charset[1]) if charset else None
        if label is not None:
            return label
    return None


def _known(name: bytes) -> str | None:
    label = name.decode("ascii")
    codec = charsets.encoding_of(label)
    if codec is None:
        return None
    return "utf-8" if codec.startswith("utf-16") else label
