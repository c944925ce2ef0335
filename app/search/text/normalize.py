"""Normalise text before it is cut into words, and fold words so that spellings of one word are equal.

Normalising is Unicode's NFKC, without invisible characters, with one hyphen and one apostrophe. It may change lengths,
so every character of the result keeps its place in the original.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# Variants of one character, each one character long, so that places do not move: apostrophes, hyphens, and signs that
# are not part of the word before them.
_VARIANTS = {
    **dict.fromkeys((0x2018, 0x2019, 0x201B, 0x02BC, 0x05F3, 0xFF07, 0x00B4), "'"),
    **dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2043, 0x2212, 0x05BE, 0xFE63, 0xFF0D), "-"),
    **dict.fromkeys((0x2122, 0x2120), " "),
    0x05F4: '"', 0x066B: ".", 0x066C: ",",
}  # fmt: skip
# Soft hyphens, zero-width blanks, joiners, marks of direction, selectors of a variant. The non-joiner ends a word in
# Arabic script only.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200d-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-"
    "\ufe0f\ufeff\uffa0\U0001bca0-\U0001bca3\U000e0000-\U000e0fff]"
    "|\u200c(?![\u0600-\u06ff\u0750-\u077f])"
)


def mark_ranges() -> str:
    """Return the combining marks of the scripts in use as ranges of a character class: they continue a word."""
    codes = [code for code in range(0x300, 0x3100) if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    members = set(codes)
    starts = [code for code in codes if code - 1 not in members]
    ends = [code for code in codes if code + 1 not in members]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))


MARKS = mark_ranges()
# Characters that may compose with the one before: marks, Hangul letters, half-width voicing marks.
_FOLLOWERS = f"{MARKS}\u1160-\u11ff\u20d0-\u20ff\u3131-\u318e\ua6f0-\uabff\ud7b0-\ud7ff\ufe20-\ufe2f\uff9e-\uffdc"
_CLUSTER = re.compile(f"[^\x00-\x7f][{_FOLLOWERS}]*|[\x00-\x7f][{_FOLLOWERS}]+")

# Accents are removed, and the points of Hebrew and Arabic, which few people type. In Cyrillic a breve makes another
# letter (й), which distinguishes endings; only the dots of ё and stress marks are removed there.
_ACCENTS = re.compile(
    "[\u0300\u0301]|(?<![\u0400-\u04ff])[\u0302-\u036f]|(?<=\u0435)\u0308"
    "|[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u065f\u0670]"
)
# Spellings of one letter: the end forms of Hebrew, what Arabic writers use for each other (after Lucene's
# ArabicNormalizer) with the Persian yeh and kaf, the dotless i, and Latin letters that do not decompose.
_SAME = {
    0x05DA: "\u05db", 0x05DD: "\u05de", 0x05DF: "\u05e0", 0x05E3: "\u05e4", 0x05E5: "\u05e6", 0x0649: "\u064a",
    0x0629: "\u0647", 0x06CC: "\u064a", 0x06A9: "\u0643", 0x0131: "i", 0x00E6: "ae", 0x0153: "oe", 0x00F8: "o",
    0x0142: "l", 0x0111: "d", 0x00F0: "d", 0x00FE: "th", 0x0127: "h", 0x0167: "t", 0x0180: "b", 0x014B: "n",
}  # fmt: skip
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")


@dataclass(frozen=True, slots=True)
class Normalized:
    """A normalised text. `starts` and `ends` are the places of its characters in the original; None if unchanged."""

    text: str
    starts: list[int] | None = None
    ends: list[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the place in the original of a part that is not empty."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


def normalize(text: str) -> Normalized:
    """Return the text in NFKC without invisible characters, and with the places of its characters."""
    if text.isascii():
        return Normalized(text)
    text = text.translate(_VARIANTS)
    if unicodedata.is_normalized("NFKC", text) and _INVISIBLE.search(text) is None:
        return Normalized(text)
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    for match in _CLUSTER.finditer(text):
        cluster = match.group()
        composed = unicodedata.normalize("NFKC", _INVISIBLE.sub("", cluster))
        if composed == cluster:
            continue
        begin, end = match.span()
        parts += [text[at:begin], composed]
        starts += [*range(at, begin), *[begin] * len(composed)]
        ends += [*range(at + 1, begin + 1), *[end] * len(composed)]
        at = end
    parts.append(text[at:])
    starts += range(at, len(text))
    ends += range(at + 1, len(text) + 1)
    return Normalized("".join(parts), starts, ends)


def fold(text: str) -> str:
    """Remove case, accents and variants of letters and digits: 'Élan' and 'elan', 'œuvre' and 'oeuvre' are equal."""
    if text.isascii():
        return text.lower()
    folded = normalize(text).text.casefold()
    if folded.isascii():
        return folded
    folded = _ACCENTS.sub("", unicodedata.normalize("NFKD", folded))
    folded = unicodedata.normalize("NFC", folded).translate(_SAME)
    return _FOREIGN_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit.group())), folded)
