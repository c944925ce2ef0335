"""Operators in a query: "exact words", -without, site:example.com, lang:de."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.search.text.words import plain_words

# In a longer query, operators are text by default: it is a pasted passage, whose quotes and dashes are prose.
MAX_OPERATOR_WORDS = 20

_PART = re.compile(
    r'(?<!\S)(?P<minus>-?)"(?P<phrase>[^"]*[^\W_][^"]*)"'
    r"|(?<!\S)site:(?P<site>[^\s\"]+)"
    r"|(?<!\S)lang:(?P<language>[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*)(?!\S)"
    r"|(?<!\S)-(?P<without>[^\W_]\S*)"
)


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """A parsed query; `text` is the scored part, including the words of phrases."""

    text: str
    phrases: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    without_phrases: tuple[str, ...] = ()
    site: str | None = None
    language: str | None = None


def has_operators(query: str, choice: bool | None) -> bool:
    """Return True if the query's operators apply: as the caller chose, by default in a query of up to 20 words.

    Two characters of a script without blanks count as a word.
    """
    if choice is not None:
        return choice
    return sum(0.5 if word.kind == "pair" else 1.0 for word in plain_words(query)) <= MAX_OPERATOR_WORDS


def parse(query: str) -> ParsedQuery:
    """Parse the query; everything that is no operator is text. Of several sites or languages the last one applies."""
    operators: dict[str, list[str]] = {"phrase": [], "-phrase": [], "site": [], "language": [], "without": []}

    def take(match: re.Match[str]) -> str:
        name = match.lastgroup or ""
        value = match[name].strip()
        operators[f"-{name}" if match["minus"] else name].append(value)
        return f" {value} " if name == "phrase" and not match["minus"] else " "

    text = " ".join(_PART.sub(take, query).split()) if _PART.search(query) else query
    return ParsedQuery(
        text=text,
        phrases=tuple(operators["phrase"]),
        without=tuple(operators["without"]),
        without_phrases=tuple(operators["-phrase"]),
        site=_site(operators["site"][-1]) if operators["site"] else None,
        language=operators["language"][-1] if operators["language"] else None,
    )


def _site(value: str) -> str:
    """Return the domain of a typed or copied address: without scheme, path and a leading '*.'."""
    return re.sub(r"^[a-z]+://", "", value, flags=re.IGNORECASE).split("/", 1)[0].removeprefix("*.").strip(".")
