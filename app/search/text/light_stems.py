"""Light stemmers of Hebrew and Arabic.

They remove affixes while enough of the word is left. Letters are code points, since editors reorder right-to-left text.
"""

from __future__ import annotations

import re

_HEBREW = re.compile("[\u05d0-\u05ea]{3,}")
_VAV, _HE, _SHIN, _YOD = "\u05d5", "\u05d4", "\u05e9", "\u05d9"
# bet, kaf, lamed
_IN_AS_TO = "\u05d1\u05db\u05dc"
# yod mem, vav tav, he
_PLURAL, _FEMININE_PLURAL = "\u05d9\u05de", "\u05d5\u05ea"
# Year, hour, language, and their plurals: short words that often have a prefix.
_HEBREW_SHORT = frozenset(
    (
        "\u05e9\u05e0\u05d4", "\u05e9\u05e0\u05d5\u05ea", "\u05e9\u05e2\u05d4", "\u05e9\u05e2\u05d5\u05ea",
        "\u05e9\u05e4\u05d4", "\u05e9\u05e4\u05d5\u05ea",
    )
)  # fmt: skip
# Of years, days, women, sons, daughters, houses, people, towns: forms with another stem.
_HEBREW_IRREGULAR = {
    "\u05e2\u05e8\u05d9\u05de": "\u05e2\u05d9\u05e8",
    "\u05e9\u05e0\u05d9\u05de": "\u05e9\u05e0\u05d4", "\u05e9\u05e0\u05ea": "\u05e9\u05e0\u05d4",
    "\u05d9\u05de\u05d9\u05de": "\u05d9\u05d5\u05de", "\u05e0\u05e9\u05d9\u05de": "\u05d0\u05e9\u05d4",
    "\u05d0\u05d9\u05e9\u05d4": "\u05d0\u05e9\u05d4", "\u05d1\u05e0\u05d9\u05de": "\u05d1\u05e0",
    "\u05d1\u05e0\u05d5\u05ea": "\u05d1\u05ea", "\u05d1\u05ea\u05d9\u05de": "\u05d1\u05d9\u05ea",
    "\u05d0\u05e0\u05e9\u05d9\u05de": "\u05d0\u05d9\u05e9",
}  # fmt: skip

_ARABIC = re.compile("[\u0621-\u064a]{3,}")
_WAW = "\u0648"
# al, bal, kal, fal, lil
_ARTICLES = ("\u0627\u0644", "\u0628\u0627\u0644", "\u0643\u0627\u0644", "\u0641\u0627\u0644", "\u0644\u0644")
# ha, an, at, un, in, iyah, ah, i
_SUFFIXES = (
    "\u0647\u0627", "\u0627\u0646", "\u0627\u062a", "\u0648\u0646", "\u064a\u0646", "\u064a\u0647", "\u0647", "\u064a"
)  # fmt: skip


def hebrew(word: str) -> str:
    """Remove the prefixes and, the, in, as, to, that, then a plural or feminine ending.

    Mem is not removed: as a prefix it means from, but many nouns begin with it (mikhtav of katav). Other prefixes
    are removed only where enough of a word is left, so that a root keeps its first letter.
    """
    if _HEBREW.fullmatch(word) is None:
        return word
    shorter = _without_hebrew_prefix(word)
    while shorter != word:
        word, shorter = shorter, _without_hebrew_prefix(shorter)
    if word in _HEBREW_IRREGULAR:
        return _HEBREW_IRREGULAR[word]
    if word.endswith(_FEMININE_PLURAL) and len(word) == 4:
        return word[:-2] + _HE  # shanot is the plural of shana
    letters = _count_before_ending(word)
    stem = word[:letters] if letters >= 3 else word
    return stem[:-1] if stem.endswith(_YOD + _YOD) else stem


def _without_hebrew_prefix(word: str) -> str:
    first, rest = word[0], word[1:]
    if word in _HEBREW_IRREGULAR or len(rest) < 3 or (rest[0] == _VAV and first != _HE):
        return word
    if first in (_VAV, _HE) or rest in _HEBREW_IRREGULAR or rest in _HEBREW_SHORT:
        return rest
    letters = _count_before_ending(rest)
    if first in _IN_AS_TO:
        return rest if letters >= 3 else word
    if first == _SHIN:
        return rest if letters >= (3 if rest[0] == _HE else 4) else word
    return word


def _count_before_ending(word: str) -> int:
    """Count the letters before a plural or feminine ending."""
    if word.endswith((_PLURAL, _FEMININE_PLURAL)):
        return len(word) - 2
    return len(word) - 1 if word.endswith(_HE) else len(word)


def arabic(word: str) -> str:
    """Remove 'and', the article and endings; at least two letters stay. Teh marbuta is heh here, as folded.

    light10 of Larkey, Ballesteros and Connell, "Light Stemming for Arabic Information Retrieval", 2007. It removes a
    waw also from a word that begins with one; here after an article too, so that both forms become one.
    """
    if _ARABIC.fullmatch(word) is None:
        return word
    word = _without_waw(word)
    for article in _ARTICLES:
        if word.startswith(article) and len(word) - len(article) >= 2:
            word = _without_waw(word.removeprefix(article))
            break
    for suffix in _SUFFIXES:
        if len(word) - len(suffix) >= 2:
            word = word.removesuffix(suffix)
    return word


def _without_waw(word: str) -> str:
    return word[1:] if word.startswith(_WAW) and len(word) > 3 else word
