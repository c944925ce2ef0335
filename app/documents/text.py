"""Stored text: all later offsets count in it, so it is cleaned once and never changed."""

from __future__ import annotations

import math
import re
import threading
import unicodedata
from typing import Any

import py3langid

from app.core.errors import InvalidInput

MIN_WORDS = 8
MAX_DEPTH = 64
SAMPLE_CHARACTERS = 20_000

# Control characters below the blank except tab and newline, the C1 controls, byte order marks, and half surrogate
# pairs: PostgreSQL refuses NUL, and UTF-8 refuses half pairs.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
_TRAILING = re.compile(r"[ \t\u00a0]+(?=\n|$)")
_MANY_LINES = re.compile(r"\n{4,}")
_WORD = re.compile(r"[^\W\d_]{2,}")

_DATA = re.compile(r"\bdata:[\w.+-]*/?[\w.+-]*[;,]", re.IGNORECASE)
# Media type and parameters, then base64 that may be broken over lines, or data with escapes.
_HEAD = r"data:[\w.+-]{0,80}(?:/[\w.+-]{1,80})?(?:;[\w.+-]{1,40}(?:=[^;,\s\"']{0,80})?){0,6}"
_DATA_URI = re.compile(
    _HEAD
    + r"(?:;base64\s*,\s*[A-Za-z0-9+/_-]{16,}={0,2}(?:\s+[A-Za-z0-9+/_-]{40,}={0,2})*(?:\s+[A-Za-z0-9+/_-]+={1,2})?|"
    r",\s*<svg\b.{0,200000}?</svg>|,[^\s\"'<>()]{24,})",
    re.IGNORECASE | re.DOTALL,
)
# [words](data:…) and ![words](data:…), with or without <> around the URI and a title.
_DATA_TARGET = re.compile(
    r"!?\[([^\[\]]{0,2000})\]\(\s*<?data:[^()<>]*(?:\([^()]*\)[^()<>]*)*>?[^()]{0,300}\)", re.IGNORECASE
)
# [name]: <data:…>
_DATA_DEFINITION = re.compile(r"^[ ]{0,3}\[[^\[\]]{1,200}\]:\s*<?data:[^\s>]+>?.*$\n?", re.IGNORECASE | re.MULTILINE)
_DATA_IMAGE_TAG = re.compile(r"<img\b[^<>]*\bsrc\s*=\s*([\"']?)data:[^<>]*>", re.IGNORECASE)
_ALT = re.compile(r"\balt\s*=\s*([\"'])(.*?)\1", re.IGNORECASE | re.DOTALL)
_NO_ALT = ("", "", "")

_loading = threading.Lock()


def clean(text: str) -> str:
    """Return the text in composed Unicode with plain line ends, without inline data or characters that databases
    refuse."""
    text = (
        strip_data_uris(text)
        .replace("\r\n", "\n")
        .replace("\r", "\n")
        .replace("\u2028", "\n")
        .replace("\u2029", "\n\n")
    )
    text = unicodedata.normalize("NFC", _UNPRINTABLE.sub("", text))
    return _MANY_LINES.sub("\n\n\n", _TRAILING.sub("", text)).strip()


def strip_data_uris(text: str) -> str:
    """Return the text without contents of `data:` URIs: a picture keeps its alternative text, a link its words."""
    if not _DATA.search(text):
        return text
    text = _DATA_DEFINITION.sub("", text)
    text = _DATA_IMAGE_TAG.sub(lambda match: (_ALT.search(match[0]) or _NO_ALT)[2], text)
    text = _DATA_TARGET.sub(lambda match: match[1], text)
    return _DATA_URI.sub("", text)


def clean_line(text: str | None, max_characters: int = 1000) -> str | None:
    """Clean a title or similar to one line; None if nothing is left."""
    return " ".join(clean(text).split())[:max_characters] or None if text else None


def scrub_text(text: str) -> str:
    """Return the text unchanged except for characters that a database refuses."""
    return _UNPRINTABLE.sub("", text)


def scrub(value: Any, depth: int = 0) -> Any:
    """Return JSON that a database accepts: no NUL, no half surrogate pairs, no NaN. Raises InvalidInput if nested too
    deep."""
    if depth > MAX_DEPTH:
        raise InvalidInput(f"metadata: nested deeper than {MAX_DEPTH}", code="too_deep")
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [scrub(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {scrub_text(str(key)): scrub(item, depth + 1) for key, item in value.items()}
    return value


def detect_language(text: str) -> str | None:
    """Return the ISO 639 code of the language; None if the text is too short to detect it."""
    sample = text[:SAMPLE_CHARACTERS]
    if len(_WORD.findall(sample)) < MIN_WORDS and not any(character > "\u2fff" for character in sample):
        return None
    with _loading:  # load the model once, at first use
        language, _ = py3langid.classify(sample)
    return str(language) if language not in ("zxx", "und") else None


def first_heading(markdown: str) -> str | None:
    """Return the page's own title: its first level-1 heading, or a heading of any level in its first line."""
    match = re.search(r"^# +(.+?)#*$", markdown, re.MULTILINE) or re.search(r"\A\s*#{1,6} +(.+?)#*$", markdown, re.M)
    return clean_line(match.group(1), 300) if match else None
