"""A question of a caller, and the cursor to the next page of its answer."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from app.core.errors import InvalidInput
from app.search.engines.base import DEFAULT_FUSION, Facet, Filters, Fusion, Hit, Mode

MAX_QUERY_CHARACTERS = 4096
MAX_PAGE_HITS = 100


@dataclass(frozen=True, slots=True)
class Question:
    """A caller's question; `cursor` comes from the previous page and overrides the offset.

    `query` may contain operators; `operators` turns them on or off, None decides by the length. `all_chunks` shows
    every matching chunk of a document instead of the best one.
    """

    query: str
    mode: Mode = "hybrid"
    filters: Filters = field(default_factory=Filters)
    limit: int = 10
    offset: int = 0
    cursor: str | None = None
    fusion: Fusion = DEFAULT_FUSION
    facets: Sequence[Facet] = ()
    all_chunks: bool = False
    operators: bool | None = None


def check_question(question: Question) -> None:
    """Raises InvalidInput for an invalid query, page or cursor."""
    if len(question.query) > MAX_QUERY_CHARACTERS:
        raise InvalidInput(f"query: at most {MAX_QUERY_CHARACTERS} characters, this has {len(question.query)}")
    if not 1 <= question.limit <= MAX_PAGE_HITS:
        raise InvalidInput(f"limit: from 1 to {MAX_PAGE_HITS}, not {question.limit}")
    if question.offset < 0:
        raise InvalidInput(f"offset: 0 or more, not {question.offset}")
    read_cursor(question)


def _digest(question: Question) -> str:
    asked = [question.query, question.mode, question.fusion, asdict(question.filters), question.operators]
    return hashlib.blake2b(json.dumps(asked, default=str).encode(), digest_size=8).hexdigest()


def cursor(question: Question, offset: int, last: Hit) -> str:
    text = json.dumps([_digest(question), offset, last.score, last.document_id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(question: Question) -> tuple[tuple[float, int] | None, int]:
    """Return the hit to continue after, if any, and the offset."""
    if question.cursor is None:
        return None, question.offset
    try:
        text = base64.urlsafe_b64decode(question.cursor + "=" * (-len(question.cursor) % 4))
        digest, offset, score, document_id = json.loads(text)
        after = float(score), int(document_id)
        offset = int(offset)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidInput("cursor: not a cursor of this API") from error
    if digest != _digest(question) or offset < 0:
        raise InvalidInput("cursor: it belongs to a different query")
    return after, offset
