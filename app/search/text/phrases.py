"""Exact words: which of the documents that have all of them have them side by side, as their stored text says."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.search.models import document, document_version
from app.search.text.analyzer import fold, has_cjk, words

# So many documents are looked into for a phrase, those with the best keyword score.
MOST_CANDIDATES = 5_000
IDS_AT_ONCE = 200


def with_phrases(session: Session, tenant: str, ids: Sequence[int], phrases: Sequence[str]) -> list[int]:
    """Those of the documents whose text or title has every phrase: its words in their order, whatever stands between.

    Case and accents do not count, stop words do.
    """
    tests = [_test(phrase) for phrase in phrases]
    query = (
        sa.select(document.c.id, document.c.title, document_version.c.text)
        .join(document_version, document_version.c.id == document.c.version_id)
        .where(document.c.tenant == tenant)
    )
    found = []
    for first in range(0, len(ids), IDS_AT_ONCE):
        for row in session.execute(query.where(document.c.id.in_(ids[first : first + IDS_AT_ONCE]))):
            title, text = fold(row.title or ""), fold(row.text or "")
            if all(test(title) or test(text) for test in tests):
                found.append(row.id)
    return found


def _test(phrase: str) -> Callable[[str], bool]:
    """Whether a folded text has the phrase."""
    if has_cjk(phrase):
        # Pairs overlap, so the characters themselves are compared; what is blank may be any blank.
        spaced = re.compile(r"\s+".join(re.escape(part) for part in fold(phrase).split()))
        return lambda text: spaced.search(text) is not None
    between = r"[\W_]+".join(re.escape(word.folded) for word in words(phrase))
    pattern = re.compile(rf"(?<![^\W_]){between}(?![^\W_])")
    return lambda text: pattern.search(text) is not None
