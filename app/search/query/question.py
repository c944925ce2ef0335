"""A question as it is asked, and the cursor that goes on behind a page of its answer."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from app.core.errors import InvalidInput
from app.search.engines.base import DEFAULT_FUSION, Facet, Filters, Fusion, Hit, Mode

LONGEST_QUERY = 4096
LARGEST_PAGE = 100


@dataclass(frozen=True, slots=True)
class Question:
    """What a caller asks; `cursor` is the one of the page before and wins over the offset.

    `query` may hold operators. `all_chunks` shows of each document all that fit and not only the best one.
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


def checked(question: Question) -> None:
    """Raises InvalidInput for a query, page or cursor that cannot be."""
    if len(question.query) > LONGEST_QUERY:
        raise InvalidInput(f"query: at most {LONGEST_QUERY} characters, this has {len(question.query)}")
    if not 1 <= question.limit <= LARGEST_PAGE:
        raise InvalidInput(f"limit: from 1 to {LARGEST_PAGE}, not {question.limit}")
    if question.offset < 0:
        raise InvalidInput(f"offset: 0 or more, not {question.offset}")
    opened(question)


def _digest(question: Question) -> str:
    asked = [question.query, question.mode, question.fusion, asdict(question.filters)]
    return hashlib.blake2b(json.dumps(asked, default=str).encode(), digest_size=8).hexdigest()


def cursor(question: Question, offset: int, last: Hit) -> str:
    text = json.dumps([_digest(question), offset, last.score, last.document_id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def opened(question: Question) -> tuple[tuple[float, int] | None, int]:
    """The hit to go on behind, if any, and the offset."""
    if question.cursor is None:
        return None, question.offset
    try:
        text = base64.urlsafe_b64decode(question.cursor + "=" * (-len(question.cursor) % 4))
        digest, offset, score, document_id = json.loads(text)
        after = float(score), int(document_id)
        offset = int(offset)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidInput("cursor: it is none of ours") from error
    if digest != _digest(question) or offset < 0:
        raise InvalidInput("cursor: it belongs to another query")
    return after, offset
