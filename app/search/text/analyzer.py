"""Turn text into terms, identically for documents, queries and every engine.

Unicode words are case-folded, accents folded, stop words dropped, and stemmed by language (Snowball; light stemmers for
Arabic and Hebrew). Runs of Chinese, Japanese and Korean characters become pairs. A term is stored as a 32-bit hash, a
text's terms as hashes packed with their counts.
"""

from __future__ import annotations

import re
import threading
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import Stemmer

from app.search.text.light_stems import arabic, hebrew
from app.search.text.stopwords import STOP_WORDS

DEFAULT_LANGUAGE = "en"
MAX_WORD_CHARACTERS = 64
MAX_COUNT = 0xFFFF

STEMMERS = {
    "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "et": "estonian", "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian",
    "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "nb": "norwegian", "ne": "nepali",
    "nl": "dutch", "nn": "norwegian", "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian",
    "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"


def _marks() -> str:
    """Return the combining marks of the scripts in use as a character class: they continue a word, but are not \\w."""
    codes = [code for code in range(0x300, 0x3000) if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    starts = [code for code in codes if code - 1 not in set(codes)]
    ends = [code for code in codes if code + 1 not in set(codes)]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))


_WORD = re.compile(rf"[^\W_](?:[^\W_]|[{_marks()}])*")
_HAS_CJK = re.compile(f"[{_CJK}]")
_CJK_PARTS = re.compile(f"[{_CJK}]+|[^{_CJK}]+")
# Accents are removed, and the points of Hebrew and Arabic, which few people type. In Cyrillic a breve makes another
# letter (й), which distinguishes endings; only the dots of ё and stress marks are removed there.
_ACCENTS = re.compile(
    "[\u0300\u0301]|(?<![\u0400-\u04ff])[\u0302-\u036f]|(?<=\u0435)\u0308"
    "|[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u065f\u0670]"
)
# Spellings of one letter: the end forms of Hebrew, and what Arabic writers use for each other (after Lucene's
# ArabicNormalizer); the dotless i.
_SAME = {
    0x05DA: 0x05DB, 0x05DD: 0x05DE, 0x05DF: 0x05E0, 0x05E3: 0x05E4, 0x05E5: 0x05E6, 0x0649: 0x064A, 0x0629: 0x0647,
    0x0131: 0x0069,
}  # fmt: skip

Hashes = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class WordSpan:
    """A word of a text with its position and folded form."""

    start: int
    end: int
    folded: str


class _Stemmers(threading.local):
    """One Snowball stemmer per thread: stemmers keep state while they work."""

    def __init__(self) -> None:
        self.stemmers: dict[str, Stemmer.Stemmer] = {}

    def get(self, algorithm: str) -> Stemmer.Stemmer:
        if algorithm not in self.stemmers:
            self.stemmers[algorithm] = Stemmer.Stemmer(algorithm)
        return self.stemmers[algorithm]


_stemmers = _Stemmers()


def fold(word: str) -> str:
    """Remove case and accents: 'Élan' and 'elan' are one word."""
    folded = word.casefold()
    if folded.isascii():
        return folded
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", folded))).translate(_SAME)


def has_cjk(text: str) -> bool:
    """Return True if the text has characters that are searched in pairs."""
    return _HAS_CJK.search(text) is not None


def words(text: str) -> Iterator[WordSpan]:
    """Yield the words in order, including pairs of Chinese and Japanese characters."""
    pairs = has_cjk(text)
    for match in _WORD.finditer(text):
        start, word = match.start(), match.group()
        if not pairs or _HAS_CJK.search(word) is None:
            folded = fold(word[:MAX_WORD_CHARACTERS])
            if folded:  # a tatweel alone has no meaning
                yield WordSpan(start, match.end(), folded)
            continue
        for part in _CJK_PARTS.finditer(word):
            piece, at = part.group(), start + part.start()
            if _HAS_CJK.match(piece) is None:
                yield WordSpan(at, at + len(piece), fold(piece[:MAX_WORD_CHARACTERS]))
            elif len(piece) == 1:
                yield WordSpan(at, at + 1, fold(piece))
            else:
                yield from (WordSpan(at + i, at + i + 2, fold(piece[i : i + 2])) for i in range(len(piece) - 1))


def primary(language: str | None) -> str:
    """Return the language's two or three letters: 'en-GB' is 'en'; None is the default."""
    return re.split("[-_]", language.strip().lower(), maxsplit=1)[0] if language else DEFAULT_LANGUAGE


def stems(folded: Sequence[str], language: str | None) -> list[str]:
    """Return one stem per folded word; the word itself if its language has no stemmer."""
    name = primary(language)
    light = _LIGHT.get(name)
    if light is not None:
        return [light(word) for word in folded]
    if name == "pt":
        folded = [_PORTUGUESE_PLURAL.sub("ao", word) for word in folded]
    algorithm = STEMMERS.get(name)
    if algorithm is None:
        return list(folded)
    result: list[str] = _stemmers.get(algorithm).stemWords(list(folded))
    return result


# -ões is the plural of -ão; Snowball knows it with its accents only.
_PORTUGUESE_PLURAL = re.compile(r"(?<=\w\w)oes$")
# By language; the others are Snowball's.
_LIGHT = {"ar": arabic, "he": hebrew}


def terms(text: str, language: str | None = None) -> list[str]:
    """Return the text's terms in order, with repetitions."""
    stop = STOP_WORDS.get(primary(language), frozenset())
    return stems([word.folded for word in words(text) if word.folded not in stop], language)


def without_stop_words(text: str, language: str | None = None) -> str:
    """Return the text without its stop words; the text itself if nothing else is left."""
    stop = STOP_WORDS.get(primary(language), frozenset())
    parts, at = [], 0
    for word in words(text):
        if word.folded in stop:
            parts.append(text[at : word.start])
            at = word.end
    shorter = "".join([*parts, text[at:]])
    return shorter if _WORD.search(shorter) else text


def term_hash(term: str) -> int:
    return zlib.crc32(term.encode("utf-8", "surrogatepass"))


def region_free(language: str) -> str:
    """Return 'de' for 'de-AT'."""
    return re.split("[-_]", language, maxsplit=1)[0]


def word_variants(text: str, languages: Iterable[str]) -> list[list[int]]:
    """Return for each word of the text the hashes that match it, one per stem.

    A query does not state its language, so each word is stemmed by all `languages` of the index, the commonest first;
    stop
    words of the commonest are dropped.
    """
    order = list(dict.fromkeys(primary(language) for language in languages)) or [DEFAULT_LANGUAGE]
    folded = [word.folded for word in words(text)]
    common = STOP_WORDS.get(order[0], frozenset())
    searched = [word for word in folded if word not in common]
    result: list[set[str]] = [set() for _ in searched]
    for language in order:
        for variants, stem in zip(result, stems(searched, language), strict=True):
            variants.add(stem)
    return [[term_hash(stem) for stem in sorted(variants)] for variants in result]


def query_terms(text: str, languages: Iterable[str]) -> list[int]:
    """Return the hashes to search, with repetitions; `languages` are those of the index, the commonest first."""
    return [value for variants in word_variants(text, languages) for value in variants]


def pack(hashes: Iterable[int]) -> bytes:
    """Pack hashes with repetitions: the distinct ones ascending (4 bytes each), then their counts (2 bytes each)."""
    counted = sorted(Counter(hashes).items())
    values = np.array([value for value, _ in counted], dtype="<u4")
    counts = np.array([min(count, MAX_COUNT) for _, count in counted], dtype="<u2")
    return values.tobytes() + counts.tobytes()


def packed_terms(text: str, language: str | None = None) -> bytes:
    return pack(term_hash(term) for term in terms(text, language))


def unpack(packed: bytes) -> tuple[Hashes, Counts]:
    """Return the distinct hashes, ascending, and their counts; views of the bytes."""
    size = len(packed) // 6
    return np.frombuffer(packed, "<u4", size), np.frombuffer(packed, "<u2", size, 4 * size)
