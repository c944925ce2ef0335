"""Pages of lists: the limit, and a cursor that says where the last page ended."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query

from app.core.errors import InvalidInput
from app.core.ids import is_uuid
from app.core.sql import storable

T = TypeVar("T")

MAX_PAGE_ROWS = 200
MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The requested part of a list: `after` is the decoded cursor of the page before, None for the first page."""

    limit: int
    after: list[Any] | None

    def cut(self, rows: Sequence[T], view: Callable[[T], Any], position: Callable[[T], list[Any]]) -> dict[str, Any]:
        """Return the page from up to limit + 1 rows; `position` of the last row becomes the next cursor."""
        more = len(rows) > self.limit
        shown = rows[: self.limit]
        return {
            "data": [view(row) for row in shown],
            "next_cursor": encode_cursor(position(shown[-1])) if more else None,
            "has_more": more,
        }

    def after_number(self) -> int | None:
        """Return the id in the cursor, None on the first page. Raises InvalidInput for any other cursor."""
        match self.after:
            case None:
                return None
            case [int(number)] if 0 <= number <= MAX_ID and not isinstance(number, bool):
                return number
        raise invalid_cursor()

    def after_uuid(self) -> str | None:
        """Return the UUID in the cursor, None on the first page. Raises InvalidInput for any other cursor."""
        match self.after:
            case None:
                return None
            case [str(text)] if is_uuid(text):
                return text
        raise invalid_cursor()

    def after_name(self) -> str | None:
        """Return the name in the cursor, None on the first page. Raises InvalidInput for any other cursor."""
        match self.after:
            case None:
                return None
            case [str(name)] if storable(name) == name:
                return name
        raise invalid_cursor()


def invalid_cursor() -> InvalidInput:
    return InvalidInput("cursor is not a next_cursor of this list", code="cursor")


async def page(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_ROWS, description="Rows on a page.")] = 50,
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")] = None,
) -> ListQuery:
    return ListQuery(limit, None if cursor is None else decode_cursor(cursor))


Paging = Annotated[ListQuery, Depends(page)]


def encode_cursor(position: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(position, separators=(",", ":")).encode()).rstrip(b"=").decode("ascii")


def decode_cursor(cursor: str) -> list[Any]:
    """Return the position that encode_cursor got. Raises InvalidInput for any other text."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        position = json.loads(base64.b64decode(padded, b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise invalid_cursor() from error
    if not isinstance(position, list):
        raise invalid_cursor()
    return position
