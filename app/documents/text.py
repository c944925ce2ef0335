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

_loading = threading.Lock()


def clean(text: str) -> str:
    """Return the text in composed Unicode with plain line ends, without characters that databases refuse."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    text = unicodedata.normalize("NFC", _UNPRINTABLE.sub("", text))
    return _MANY_LINES.sub("\n\n\n", _TRAILING.sub("", text)).strip()


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
