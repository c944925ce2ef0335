"""docs/glossary.md: each term has one line, in alphabetical order, and occurs in the code."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from tests.support.stack import REPOSITORY

PAGE = REPOSITORY / "docs" / "glossary.md"
FOLDERS = ("app", "actors")
MAX_WORDS = 25


class Entry(NamedTuple):
    """A line of the glossary; `places` are paths and identifiers."""

    term: str
    meaning: str
    places: list[str]


@lru_cache
def _entries() -> list[Entry]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == ["term", "meaning", "code"]
    return [Entry(term, meaning, re.findall(r"`([^`]+)`", code)) for term, meaning, code in rows[1:]]


@lru_cache
def _code() -> str:
    """All code and its paths."""
    paths = [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*") if path.suffix in (".py", ".lua")]
    return "\n".join(f"{path.relative_to(REPOSITORY)}\n{path.read_text()}" for path in sorted(paths))


@lru_cache
def _words() -> str:
    """The code as words: `DocumentVersion` and `document_version` both become `document version`."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _code())
    return re.sub(r"[\W_]+", " ", split).lower()


def test_the_terms_are_sorted_and_each_has_one_line() -> None:
    terms = [entry.term for entry in _entries()]
    assert len(terms) > 50
    assert terms == sorted(set(terms), key=str.lower)


def test_each_term_occurs_in_the_code() -> None:
    words = {entry.term: re.sub(r"[\W_]+", " ", entry.term).lower() for entry in _entries()}
    missing = [term for term, text in words.items() if not re.search(rf"\b{text}(?:s|es|ed)?\b", _words())]
    assert missing == []


def test_each_place_exists() -> None:
    for entry in _entries():
        assert entry.places, entry.term
        for place in entry.places:
            if "/" in place:
                assert (REPOSITORY / place).exists(), (entry.term, place)
            else:
                assert re.search(rf"\b{re.escape(place)}\b", _code()), (entry.term, place)


def test_each_meaning_is_one_short_sentence() -> None:
    for entry in _entries():
        assert entry.meaning.endswith("."), entry.term
        assert len(entry.meaning.split()) <= MAX_WORDS, entry.term
