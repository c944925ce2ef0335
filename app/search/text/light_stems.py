"""Light stemmers for languages without a Snowball stemmer, or with one that does not fit folding.

Both remove affixes while enough of the word is left. Letters are code points, since editors reorder right-to-left text.
"""

from __future__ import annotations

import re

_HEBREW = re.compile("[\u05d0-\u05ea]{4,}")
# vav, he, bet, kaf, lamed, mem, shin; then yod mem, vav tav, or he
_HEBREW_PREFIX = re.compile("^[\u05d5\u05d4\u05d1\u05db\u05dc\u05de\u05e9]+(?=.{3})")
_HEBREW_ENDING = re.compile("(?<=...)(?:\u05d9\u05de|\u05d5\u05ea|\u05d4)$")

_ARABIC = re.compile("[\u0621-\u064a]{3,}")
_WAW = "\u0648"
# al, bal, kal, fal, lil
_ARTICLES = ("\u0627\u0644", "\u0628\u0627\u0644", "\u0643\u0627\u0644", "\u0641\u0627\u0644", "\u0644\u0644")
# ha, an, at, un, in, iyah, ah, i
_SUFFIXES = (
    "\u0647\u0627", "\u0627\u0646", "\u0627\u062a", "\u0648\u0646", "\u064a\u0646", "\u064a\u0647", "\u0647", "\u064a"
)  # fmt: skip


def hebrew(word: str) -> str:
    """Remove a plural or feminine ending, and the prefixes and, the, in, as, to, from, that; at least three letters
    stay.

    Like `arabic`, it removes the same letters with and without a prefix.
    """
    if _HEBREW.fullmatch(word) is None:
        return word
    return _HEBREW_PREFIX.sub("", _HEBREW_ENDING.sub("", word))


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
