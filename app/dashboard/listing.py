"""Pages of long lists: 50 rows, newest first, continued by the position of the last row; nothing is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request

from app.core.errors import InvalidInput
from app.core.ids import is_uuid

T = TypeVar("T")

PAGE_ROWS = 50
MAX_ID = 2**63 - 1


class Listing(NamedTuple):
    """Rows of a page; the addresses of the next older page and of the newest one, None where this is it."""

    rows: list[Any]
    older: str | None
    newest: str | None


def cut(request: Request, rows: Sequence[T], view: Callable[[T], Any], position: Callable[[T], object]) -> Listing:
    """Return the page from up to PAGE_ROWS + 1 rows."""
    shown = rows[:PAGE_ROWS]
    older = None
    if len(rows) > PAGE_ROWS:
        older = address(request, before=str(position(shown[-1])), message=None)
    newest = address(request, before=None, message=None) if "before" in request.query_params else None
    return Listing([view(row) for row in shown], older, newest)


def address(request: Request, **changes: str | None) -> str:
    """Return the address of this page with parameters changed; None removes one."""
    names = [(name, value) for name, value in request.query_params.multi_items() if name not in changes and value]
    names += [(name, value) for name, value in changes.items() if value]
    return f"{request.url.path}?{urlencode(names)}" if names else request.url.path


def chips_of(request: Request, chosen: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return name, value and the address without it of each filter that is set."""
    without: dict[str, str | None] = {"before": None}
    return [(name, value, address(request, **without | {name: None})) for name, value in chosen.items() if value]


def before_uuid(request: Request) -> str | None:
    """Return the position as a job's id. Raises InvalidInput for another text."""
    text = request.query_params.get("before")
    if text is not None and not is_uuid(text):
        raise InvalidInput("before must be the id of the last row of the page before", code="cursor")
    return text


def before_number(request: Request) -> int | None:
    """Return the position as a number. Raises InvalidInput for another text."""
    text = request.query_params.get("before")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= MAX_ID):
        raise InvalidInput("before must be the id of the last row of the page before", code="cursor")
    return int(text)
