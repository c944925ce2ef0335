"""Text as it is stored: what every later offset counts in, so it is made clean once and never changed again."""

from __future__ import annotations

import math
import re
import threading
import unicodedata
from typing import Any

import py3langid

from app.core.errors import InvalidInput

SURE_WORDS = 8
DEEPEST = 64
SAMPLE_CHARACTERS = 20_000

# Everything below blank but tab and newline, the C1 controls, byte order marks, and halves of pairs: PostgreSQL
# refuses NUL, and UTF-8 the halves.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
_TRAILING = re.compile(r"[ \t\u00a0]+(?=\n|$)")
_MANY_LINES = re.compile(r"\n{4,}")
_WORD = re.compile(r"[^\W\d_]{2,}")

_loading = threading.Lock()


def clean(text: str) -> str:
    """The text in composed Unicode with plain line ends, without what no database or reader wants."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    text = unicodedata.normalize("NFC", _UNPRINTABLE.sub("", text))
    return _MANY_LINES.sub("\n\n\n", _TRAILING.sub("", text)).strip()


def clean_line(text: str | None, longest: int = 1000) -> str | None:
    """The same for titles and the like: one line, or None where nothing is left."""
    return " ".join(clean(text).split())[:longest] or None if text else None


def scrub_text(text: str) -> str:
    """The text as it was given, without what a database refuses."""
    return _UNPRINTABLE.sub("", text)


def scrub(value: Any, depth: int = 0) -> Any:
    """JSON that a database takes: no NUL, no halves, no NaN. Raises InvalidInput where it is nested too deep."""
    if depth > DEEPEST:
        raise InvalidInput(f"metadata: nested deeper than {DEEPEST}", code="too_deep")
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
    """ISO 639 letters, None where the text is too short to tell."""
    sample = text[:SAMPLE_CHARACTERS]
    if len(_WORD.findall(sample)) < SURE_WORDS and not any(character > "\u2fff" for character in sample):
        return None
    with _loading:  # the model is loaded at first use, and not twice
        language, _ = py3langid.classify(sample)
    return str(language) if language not in ("zxx", "und") else None


def first_heading(markdown: str) -> str | None:
    """The title a page gives itself: its first heading of the first level, or of any in its first lines."""
    match = re.search(r"^# +(.+?)#*$", markdown, re.MULTILINE) or re.search(r"\A\s*#{1,6} +(.+?)#*$", markdown, re.M)
    return clean_line(match.group(1), 300) if match else None
