"""Endings that Snowball's stemmers know with their accents only, for words whose accents are folded.

`before` rewrites the folded word, `after` the stem.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Rules = Sequence[tuple[re.Pattern[str], str]]


def _rules(*pairs: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


# Plurals that look like others: mães is no plural of mão, heróis none of -ol.
_PORTUGUESE_WORDS = {
    "maes": "mae", "caos": "caos", "demais": "demais", "jamais": "jamais", "depois": "depois", "herois": "heroi",
    "combois": "comboi", "sois": "sol", "taxis": "taxi", "juris": "juri", "safaris": "safari", "lapis": "lapis",
    "biquinis": "biquini", "javalis": "javali", "colibris": "colibri", "tenis": "tenis", "gratis": "gratis",
    "oasis": "oasis",
    "pais": "pais", "reis": "rei", "leis": "lei", "seis": "seis", "quais": "qual", "tais": "tal", "quis": "quis",
    "icones": "icone", "telefones": "telefone",
}  # fmt: skip
BEFORE: dict[str, Rules] = {
    # élevée, élevées
    "fr": _rules((r"(?<=\w)ees?$", "e"), (r"(?<=\w\w)us$", "u")),
    # ταξίδια
    "el": _rules((r"(?<=\w\w[βγδζθκλμνξπρσςτφχψ])ια$", "ι")),
    "pt": _rules(
        (r"(?<=\w)(?:oes|aes|aos)$", "ao"),
        (r"(?<=\w\w)eses$", "es"),
        (r"(?<=\w\w)ais$", "al"),
        (r"(?<=\w\w)ois$", "ol"),
        (r"(?<=\w\w)uis$", "ul"),
        (r"(?<=\w\w)(?:eis|il|is)$", "el"),
        (r"(?<=\w)([eiou])ns$", r"\1m"),
        (r"(?<=\w)en$", "em"),
        (r"(?<=\w[aeiou])([rz])es$", r"\1"),
    ),
    # laghi, banche
    "it": _rules((r"(?<=\w[cg])h(?=[ie]$)", "")),
    "es": _rules((r"(?<=\w)z$", "ce"), (r"(?<=\w[aei][nd])es$", "")),
}
AFTER: dict[str, Rules] = {
    "el": _rules((r"(?<=\w\w\w)ι$", "")),
}


def before(word: str, language: str) -> str:
    """Return the folded word with the ending that the stemmer handles."""
    if language == "pt" and word in _PORTUGUESE_WORDS:
        return _PORTUGUESE_WORDS[word]
    for pattern, replacement in BEFORE[language]:
        changed = pattern.sub(replacement, word)
        if changed != word:
            return changed
    return word


def after(stem: str, language: str) -> str:
    """Return the stem that all forms of the word share."""
    for pattern, replacement in AFTER[language]:
        stem = pattern.sub(replacement, stem)
    return stem
