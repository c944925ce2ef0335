"""Cut text into words: plain words, compounds as they are typed (AB-1234/X, C++, getUserName), and pairs of characters.

A compound is a word of its own next to its parts. It is written without hyphens, underscores and apostrophes, so that
`e-mail` and `email` are equal; other signs, and signs between two digits, are part of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from app.search.text.normalize import MARKS, Normalized, fold, normalize
from app.search.text.stopwords import STOP_WORDS

MAX_WORD_CHARACTERS = 64

# word: a plain word; pair: two characters of a script without blanks; compound: several words as typed; exact: a
# compound that a query does not search by its parts; piece: a part of a plain word.
Kind = Literal["word", "pair", "compound", "exact", "piece"]

# Chinese, Japanese, Korean, Thai, Lao, Burmese and Khmer; without their digits.
_PAIRED = (
    "\u0e00-\u0e4f\u0e5a-\u0e7f\u0e80-\u0ecf\u0eda-\u0eff\u1000-\u103f\u104a-\u108f\u109a-\u109f\u1100-\u11ff"
    "\u1780-\u17df\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_HAS_PAIRED = re.compile(f"[{_PAIRED}]")
_PAIRED_PARTS = re.compile(f"[{_PAIRED}]+|[^{_PAIRED}]+")

_PLAIN = rf"[^\W_](?:[^\W_]|[{MARKS}])*"
# With the signs of C++, C++17, C# and F#.
_UNIT = rf"{_PLAIN}(?:\+\+\d*|\#)?(?![^\W_])|{_PLAIN}"
_SIGN = r""":[/\\]{1,2}|::|_+|['./@:&+\\-]|(?<=\d),(?=\d)|(?<=[\u05d0-\u05ea])"(?=[\u05d0-\u05ea])"""
_TOKEN = re.compile(rf"(?:(?<![^\W_])(?<!\.)\.(?=[^\W\d_]))?(?:{_UNIT})(?:(?:{_SIGN})(?:{_UNIT}))*")
_UNITS = re.compile(_UNIT)
_RUN = re.compile(_PLAIN)
# A token without these is one plain word.
_COMPLEX = re.compile(r"""['./@:&\\,"+#_\d-]|[a-zß-öø-ÿ][A-ZÀ-ÖØ-Þ]|[A-ZÀ-ÖØ-Þ]{2}[a-zß-öø-ÿ]""")
# The signs that separate the parts of a compound, the strongest first: of a path, an address, a name, a word.
_LEVELS = tuple(re.compile(pattern) for pattern in (r":?[/\\]+", r"[@:&+,\"]+", r"\.", r"_+", r"-", r"'"))
_SILENT = frozenset("'-_\"")
_CAMEL = re.compile(r"[A-ZÀ-ÖØ-Þ]+(?=[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ])|[A-ZÀ-ÖØ-Þ]?[a-zß-öø-ÿ]+|[A-ZÀ-ÖØ-Þ]+|\d+")
_VERSION = re.compile(r"[vV](\d+(?:\.\d+)*)")
# Contractions that are another word without their apostrophe: she'll is no shell.
_AMBIGUOUS = frozenset(("ill", "hell", "shell", "well", "hed", "shed", "wed", "id", "its", "were", "whore"))
# Articles and pronouns that French, Italian and Catalan write before a vowel: two words, no compound.
_ELIDED = frozenset(
    (
        "c", "d", "j", "l", "m", "n", "qu", "s", "t", "jusqu", "lorsqu", "puisqu", "quoiqu", "agl", "all", "anch",
        "bell",
        "coll", "com", "dall", "dell", "dov", "gl", "mezz", "nell", "nessun", "quell", "quest", "sant", "sull", "un",
    )
)  # fmt: skip


class WordSpan(NamedTuple):
    """A word of a text with its position and folded form; `stemmed` is False for a word with signs."""

    start: int
    end: int
    folded: str
    kind: Kind = "word"
    stemmed: bool = True


def has_pairs(text: str) -> bool:
    """Return True if the text has characters that are searched in pairs."""
    return _HAS_PAIRED.search(text) is not None


def words(text: str) -> Iterator[WordSpan]:
    """Yield all words of the text, compounds and pieces next to their parts, so that spans may overlap."""
    for token in tokens(text):
        yield from token


def plain_words(text: str) -> Iterator[WordSpan]:
    """Yield the words in order, without compounds and pieces."""
    return (word for word in words(text) if word.kind in ("word", "pair"))


def tokens(text: str) -> Iterator[list[WordSpan]]:
    """Yield the words of each token; a token is typed without a blank, or in one script with pairs."""
    normalized = normalize(text)
    if not has_pairs(normalized.text):
        yield from _tokens(normalized, 0, len(normalized.text))
        return
    for part in _PAIRED_PARTS.finditer(normalized.text):
        if _HAS_PAIRED.match(part.group()) is None:
            yield from _tokens(normalized, *part.span())
            continue
        for run in _RUN.finditer(normalized.text, *part.span()):
            yield _pairs(normalized, *run.span())


def _tokens(normalized: Normalized, begin: int, stop: int) -> Iterator[list[WordSpan]]:
    moved = normalized.starts is not None
    for match in _TOKEN.finditer(normalized.text, begin, stop):
        token = match.group()
        if (token.isalpha() and token.islower()) or _COMPLEX.search(token) is None:
            folded = fold(token[:MAX_WORD_CHARACTERS])
            if folded:  # a tatweel alone has no meaning
                start, end = match.span()
                yield [WordSpan(*normalized.span(start, end), folded) if moved else WordSpan(start, end, folded)]
            continue
        parts = list(_parts(normalized, match.start(), token))
        if parts:
            yield parts


def _parts(normalized: Normalized, at: int, token: str) -> Iterator[WordSpan]:
    """Yield the words of a token: the compound and the compounds within it, then each part."""
    units = [(match.start(), match.group()) for match in _UNITS.finditer(token)]
    if len(units) > 1 or token[0] == ".":
        yield from _compounds(normalized, at, token)
    for start, unit in units:
        yield from _unit(normalized, at + start, unit)


def _compounds(normalized: Normalized, at: int, token: str) -> Iterator[WordSpan]:
    """Yield the compounds of a token, the whole of it first."""
    for start, end in _ranges(token):
        part = token[start:end]
        units = [match.group() for match in _UNITS.finditer(part)]
        if end - start > MAX_WORD_CHARACTERS or _is_elided(part, units):
            continue
        place = normalized.span(at + start, at + end)
        if len(units) == 1:
            yield WordSpan(*place, fold(part), "exact", stemmed=False)
            continue
        is_acronym = all(len(unit) == 1 and unit.isalpha() for unit in units) and set(part) <= {".", *units}
        folded = fold("".join(units) if is_acronym else _joined(part))
        if folded in _AMBIGUOUS and "'" in part:
            folded = fold(part)
        if folded:
            yield WordSpan(*place, folded, "compound", stemmed=folded.isalnum() and not is_acronym)
        version = _VERSION.fullmatch(part)
        if version:
            yield WordSpan(*normalized.span(at + start + 1, at + end), version[1], "compound", stemmed=False)


def _ranges(token: str) -> list[tuple[int, int]]:
    """Return the places of a token and of all smaller compounds in it, as its signs nest them."""
    ranges = {(0, len(token)): None}
    parts = [(0, len(token))]
    for level in _LEVELS:
        parts = [
            (begin, end) for start, stop in parts for begin, end in _split(token, start, stop, level) if begin < end
        ]
        ranges |= dict.fromkeys((begin, end) for begin, end in parts if len(_UNITS.findall(token[begin:end])) > 1)
    return list(ranges)


def _split(token: str, start: int, stop: int, signs: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    for sign in signs.finditer(token, start, stop):
        yield start, sign.start()
        start = sign.end()
    yield start, stop


def _joined(part: str) -> str:
    """Return the compound without the signs that are often left out: 'e-mail' is 'email', 'don't' is 'dont'."""
    return "".join(
        sign
        for at, sign in enumerate(part)
        if sign not in _SILENT or (part[at - 1].isdigit() and part[at + 1 : at + 2].isdigit())
    )


def _is_elided(token: str, units: list[str]) -> bool:
    """Return True for two words that an apostrophe joins: l'homme, mill's."""
    if len(units) != 2 or token != "'".join(units):
        return False
    first, second = fold(units[0]), fold(units[1])
    return first in _ELIDED or (second == "s" and first not in STOP_WORDS["en"])


def _unit(normalized: Normalized, at: int, unit: str) -> Iterator[WordSpan]:
    """Yield a plain word and its pieces."""
    folded = fold(unit[:MAX_WORD_CHARACTERS])
    if not folded:
        return
    end = at + len(unit)
    signed = unit[-1] == "#" or "+" in unit
    yield WordSpan(*normalized.span(at, end), folded, stemmed=not signed)
    if signed:
        name = unit.rstrip("0123456789")
        if name != unit:
            yield WordSpan(*normalized.span(at, at + len(name)), fold(name), "piece", stemmed=False)
        return
    if unit.isalpha() and (unit.islower() or unit.istitle() or unit.isupper()):
        return
    version = _VERSION.fullmatch(unit)
    if version:
        yield WordSpan(*normalized.span(at + 1, end), fold(version[1]), "piece")
    for match in _pieces(unit):
        yield WordSpan(*normalized.span(at + match.start(), at + match.end()), fold(match.group()), "piece")


def _pieces(unit: str) -> list[re.Match[str]]:
    """Return the pieces of getUserName and report2024; none of GmbH, MP3 and iPhone's i."""
    pieces = list(_CAMEL.finditer(unit))
    if len(pieces) < 2 or sum(len(piece.group()) for piece in pieces) != len(unit):
        return []
    if any(len(piece.group()) < 2 for piece in pieces[1:]):
        return []
    return [piece for piece in pieces if len(piece.group()) > 1]


def _pairs(normalized: Normalized, start: int, stop: int) -> list[WordSpan]:
    """Return the pairs of a run of characters; a character that stands alone is one."""
    return [
        WordSpan(
            *normalized.span(place, min(place + 2, stop)), fold(normalized.text[place : min(place + 2, stop)]), "pair"
        )
        for place in range(start, max(start + 1, stop - 1))
    ]
