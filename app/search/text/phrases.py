"""Phrase search: select documents whose stored text has the words next to each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.search.models import document, document_version
from app.search.text.normalize import fold
from app.search.text.words import has_pairs, plain_words

# Number of documents checked for a phrase, those with the best keyword scores.
MAX_CANDIDATES = 5_000
IDS_AT_ONCE = 200
# The signs of C++ and C# are part of the word, as in words.py.
_MORE = r"[^\W_]|\+\+|\#(?![^\W_])"


def filter_by_phrases(session: Session, tenant: str, ids: Sequence[int], phrases: Sequence[str]) -> list[int]:
    """Return the documents whose text or title has every phrase: its words in order, separated by any punctuation.

    Case and accents are ignored, stop words are not.
    """
    tests = [_test(phrase) for phrase in phrases]
    query = (
        sa.select(document.c.id, document.c.title, document_version.c.text)
        .join(document_version, document_version.c.id == document.c.version_id)
        .where(document.c.tenant == tenant)
    )
    matches = []
    for first in range(0, len(ids), IDS_AT_ONCE):
        for row in session.execute(query.where(document.c.id.in_(ids[first : first + IDS_AT_ONCE]))):
            title, text = fold(row.title or ""), fold(row.text or "")
            if all(test(title) or test(text) for test in tests):
                matches.append(row.id)
    return matches


def _test(phrase: str) -> Callable[[str], bool]:
    """Return a function that tests whether a folded text has the phrase."""
    if has_pairs(phrase):
        # Pairs overlap, so the characters themselves are compared; a blank matches any white space.
        spaced = re.compile(r"\s+".join(re.escape(part) for part in fold(phrase).split()))
        return lambda text: spaced.search(text) is not None
    between = r"[\W_]+".join(re.escape(word.folded) for word in plain_words(phrase))
    pattern = re.compile(rf"(?<![^\W_]){between}(?!{_MORE})")
    return lambda text: pattern.search(text) is not None
