"""Typo correction: replace a word that no document has by a known word with one typo (edit distance 1).

Terms are stored as hashes, so all typos of a word are generated and looked up, instead of comparing with a list of
words (after Norvig, "How to Write a Spelling Corrector", 2007): a letter missing, doubled, wrong, or two swapped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from app.search.text.analyzer import primary, word_variants
from app.search.text.stopwords import STOP_WORDS
from app.search.text.words import plain_words

MIN_CHARACTERS = 4
MAX_CHARACTERS = 24
# A query with more unknown words than this is not corrected.
MAX_WORDS = 4

_LATIN = "abcdefghijklmnopqrstuvwxyz"
_ALPHABETS = (
    (0x0370, 0x03FF, "αβγδεζηθικλμνξοπρστυφχψω"),
    (0x0400, 0x04FF, "абвгдежзийклмнопрстуфхцчшщъыьэюяіїєґ"),
    (0x0590, 0x05FF, "אבגדהוזחטיכלמנסעפצקרשתםןץףך"),
    (0x0600, 0x06FF, "ابتثجحخدذرزسشصضطظعغفقكلمنهويةىآأؤئ"),
)

Known = Callable[[Sequence[int]], Awaitable[dict[int, int]]]


async def correct(text: str, languages: Sequence[str], known: Known) -> str | None:
    """Return the text with its unknown words corrected; None if there are none, or no known word is near.

    `known` counts the documents with each of some terms.
    """
    suspects = [word for word in plain_words(text) if _may_be_typo(word.folded, languages)]
    forms = {word.folded: _hashes(word.folded, languages) for word in suspects}
    there = await known([value for values in forms.values() for value in values])
    unknown = [word for word in suspects if not any(value in there for value in forms[word.folded])]
    if not unknown or len(unknown) > MAX_WORDS:
        return None
    better, at = [], 0
    for word in unknown:
        meant = await _meant(word.folded, languages, known)
        if meant is not None:
            better += [text[at : word.start], meant]
            at = word.end
    return "".join([*better, text[at:]]) if better else None


async def _meant(word: str, languages: Sequence[str], known: Known) -> str | None:
    """Return the commonest known word with one typo; of two as common the likelier typo."""
    near = list(dict.fromkeys(slips(word)))
    hashes = {candidate: _hashes(candidate, languages) for candidate in near}
    counts = await known(sorted({value for values in hashes.values() for value in values}))
    counted = {candidate: max((counts.get(value, 0) for value in hashes[candidate]), default=0) for candidate in near}
    best = max(near, key=lambda candidate: counted[candidate], default=None)  # the first of equals
    return best if best is not None and counted[best] else None


def slips(word: str) -> Iterator[str]:
    """Yield all words with one typo, the likeliest kinds first: swapped, doubled, missing, wrong letters."""
    alphabet = next((letters for low, high, letters in _ALPHABETS if low <= ord(word[0]) <= high), _LATIN)
    splits = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    yield from (a + b[1] + b[0] + b[2:] for a, b in splits if len(b) > 1 and b[0] != b[1])
    yield from (a + b[1:] for a, b in splits if b)
    yield from (a + letter + b for a, b in splits for letter in alphabet)
    yield from (a + letter + b[1:] for a, b in splits if b for letter in alphabet if letter != b[0])


def _may_be_typo(folded: str, languages: Sequence[str]) -> bool:
    if not MIN_CHARACTERS <= len(folded) <= MAX_CHARACTERS or any(letter.isdigit() for letter in folded):
        return False
    return not any(folded in STOP_WORDS.get(primary(language), ()) for language in languages)


def _hashes(word: str, languages: Sequence[str]) -> list[int]:
    return [value for variants in word_variants(word, languages) for value in variants]
