"""Turn text into terms, identically for documents, queries and every engine.

The text is normalised and cut into words (words.py), which are folded, cleared of stop words, and stemmed by language
(Snowball; light stemmers for Arabic, Czech, Hebrew, Polish and Ukrainian). A term is stored as a 32-bit hash, a text's
terms as hashes packed with their counts.
"""

from __future__ import annotations

import re
import threading
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import Stemmer

from app.search.text import endings
from app.search.text.light_stems import arabic, hebrew
from app.search.text.slavic_stems import czech, polish, ukrainian
from app.search.text.stopwords import STOP_WORDS
from app.search.text.words import WordSpan, plain_words, tokens, words

# The version of the terms stored with a chunk. Raise it with every change of the terms of a text: documents analysed by
# another version are analysed again (index/reanalysis.py).
ANALYZER_VERSION = 2
DEFAULT_LANGUAGE = "en"
# Kinds of words that make a text longer; compounds and pieces repeat them.
COUNTED = frozenset(("word", "pair"))
# Weight of a compound in a query, next to its parts. The best of 0.05 to 1 on both test collections.
COMPOUND_WEIGHT = 0.2
MAX_COUNT = 0xFFFF

STEMMERS = {
    "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "et": "estonian", "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian",
    "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch",
    "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian",
    "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip

# Other names of a language: written forms of Norwegian, old and three-letter codes.
_ALIASES = {
    "nb": "no", "nn": "no", "iw": "he", "in": "id", "mo": "ro", "sh": "sr", "nob": "no", "nno": "no", "nor": "no",
    "heb": "he", "ara": "ar", "cat": "ca", "ces": "cs", "cze": "cs", "dan": "da", "deu": "de", "ger": "de", "ell": "el",
    "gre": "el", "eng": "en", "spa": "es", "est": "et", "eus": "eu", "fin": "fi", "fra": "fr", "fre": "fr", "hin": "hi",
    "hun": "hu", "hye": "hy", "arm": "hy", "ind": "id", "ita": "it", "lit": "lt", "nld": "nl", "dut": "nl", "pol": "pl",
    "por": "pt", "ron": "ro", "rum": "ro", "rus": "ru", "srp": "sr", "swe": "sv", "tam": "ta", "tha": "th", "tur": "tr",
    "ukr": "uk", "zho": "zh", "chi": "zh", "jpn": "ja", "kor": "ko",
}  # fmt: skip

Hashes = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.uint16]


class _Stemmers(threading.local):
    """One Snowball stemmer per thread: stemmers keep state while they work."""

    def __init__(self) -> None:
        self.stemmers: dict[str, Stemmer.Stemmer] = {}

    def get(self, algorithm: str) -> Stemmer.Stemmer:
        if algorithm not in self.stemmers:
            self.stemmers[algorithm] = Stemmer.Stemmer(algorithm)
        return self.stemmers[algorithm]


_stemmers = _Stemmers()


def primary(language: str | None) -> str:
    """Return the language's own two or three letters: 'en-GB' is 'en', 'nb' is 'no'; None is the default."""
    if not language:
        return DEFAULT_LANGUAGE
    name = re.split("[-_]", language.strip().lower(), maxsplit=1)[0]
    return _ALIASES.get(name, name)


def stems(folded: Sequence[str], language: str | None) -> list[str]:
    """Return one stem per folded word; the word itself if its language has no stemmer."""
    name = primary(language)
    light = _LIGHT.get(name)
    if light is not None:
        return [light(word) for word in folded]
    algorithm = STEMMERS.get(name)
    if algorithm is None:
        return list(folded)
    words = [endings.before(word, name) for word in folded] if name in endings.BEFORE else list(folded)
    result: list[str] = _stemmers.get(algorithm).stemWords(words)
    return [endings.after(stem, name) for stem in result] if name in endings.AFTER else result


# By language; the others are Snowball's.
_LIGHT = {"ar": arabic, "cs": czech, "he": hebrew, "pl": polish, "uk": ukrainian}


def terms(text: str, language: str | None = None) -> list[str]:
    """Return the text's terms in order, with repetitions; a compound and its parts are separate terms."""
    return [term for term in terms_of_words(words(text), language) if term]


def terms_of_words(spans: Iterable[WordSpan], language: str | None) -> list[str]:
    """Return one term per word: its stem, or itself if it has signs; '' for a stop word."""
    listed = list(spans)
    stop = STOP_WORDS.get(primary(language), frozenset())
    forms = iter(stems([word.folded for word in listed if word.stemmed], language))
    stemmed = [next(forms) if word.stemmed else word.folded for word in listed]
    return ["" if word.stemmed and word.folded in stop else stem for word, stem in zip(listed, stemmed, strict=True)]


def without_stop_words(text: str, language: str | None = None) -> str:
    """Return the text without its stop words; the text itself if nothing else is left."""
    stop = STOP_WORDS.get(primary(language), frozenset())
    parts, at = [], 0
    for word in plain_words(text):
        if word.folded in stop:
            parts.append(text[at : word.start])
            at = word.end
    shorter = "".join([*parts, text[at:]])
    return shorter if next(plain_words(shorter), None) else text


def term_hash(term: str) -> int:
    return zlib.crc32(term.encode("utf-8", "surrogatepass"))


def region_free(language: str) -> str:
    """Return 'de' for 'de-AT'."""
    return re.split("[-_]", language, maxsplit=1)[0]


def word_variants(text: str, languages: Iterable[str]) -> list[list[int]]:
    """Return for each plain word of the text the hashes that match it, one per stem.

    A query does not state its language, so each word is stemmed by all `languages` of the index, the commonest first;
    stop words of the commonest are dropped.
    """
    return [variants for _, variants in _variants(plain_words(text), languages)]


def typed_variants(text: str, languages: Iterable[str]) -> list[list[int]]:
    """Like `word_variants`, for the text as it is typed: `x-ray` is one word, not two."""
    typed = [[span for span in token if span.kind == "pair"] or token[:1] for token in tokens(text)]
    return [variants for _, variants in _variants([span for spans in typed for span in spans], languages)]


def query_terms(text: str, languages: Iterable[str]) -> dict[int, float]:
    """Return the hashes to search with their weights; `languages` are those of the index, the commonest first.

    A compound is searched as it is typed and by its parts. `.NET` and words with pieces are searched as typed only:
    `report2024` does not find `report2023`. A repeated word weighs more.
    """
    spans = [
        span
        for token in tokens(text)
        for span in (token[:1] if token[0].kind == "exact" else token)
        if span.kind != "piece" or not span.stemmed
    ]
    weights: dict[int, float] = {}
    for span, variants in _variants(spans, languages):
        weight = 1.0 if span.kind in COUNTED or span.kind == "exact" else COMPOUND_WEIGHT
        for value in variants:
            weights[value] = weights.get(value, 0.0) + weight
    return weights


def _variants(spans: Iterable[WordSpan], languages: Iterable[str]) -> list[tuple[WordSpan, list[int]]]:
    order = list(dict.fromkeys(primary(language) for language in languages)) or [DEFAULT_LANGUAGE]
    common = STOP_WORDS.get(order[0], frozenset())
    searched = [span for span in spans if not (span.stemmed and span.folded in common)]
    result: list[set[str]] = [set() if span.stemmed else {span.folded} for span in searched]
    stemmed = [span.folded for span in searched if span.stemmed]
    for language in order:
        forms = iter(stems(stemmed, language))
        for variants, span in zip(result, searched, strict=True):
            if span.stemmed:
                variants.add(next(forms))
    hashes = [[term_hash(stem) for stem in sorted(variants)] for variants in result]
    return list(zip(searched, hashes, strict=True))


def pack(hashes: Iterable[int], uncounted: Iterable[int] = ()) -> bytes:
    """Pack hashes with repetitions: the distinct ones ascending (4 bytes each), then their counts (2 bytes each).

    Those of `uncounted` that are not among them get the count 0: they are found, but make the text no longer.
    """
    counted = sorted((dict.fromkeys(uncounted, 0) | Counter(hashes)).items())
    values = np.array([value for value, _ in counted], dtype="<u4")
    counts = np.array([min(count, MAX_COUNT) for _, count in counted], dtype="<u2")
    return values.tobytes() + counts.tobytes()


def packed_terms(text: str, language: str | None = None) -> bytes:
    listed = list(words(text))
    pairs = [(word.kind, term) for word, term in zip(listed, terms_of_words(listed, language), strict=True) if term]
    return pack(
        (term_hash(term) for kind, term in pairs if kind in COUNTED),
        (term_hash(term) for kind, term in pairs if kind not in COUNTED),
    )


def unpack(packed: bytes) -> tuple[Hashes, Counts]:
    """Return the distinct hashes, ascending, and their counts (see pack); views of the bytes."""
    size = len(packed) // 6
    return np.frombuffer(packed, "<u4", size), np.frombuffer(packed, "<u2", size, 4 * size)
