"""What routes ask of a request: who calls, which page of a list, how long to wait."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.errors import UNAUTHENTICATED, request_id_of
from app.core.errors import InvalidInput, NotAllowed
from app.core.settings import get_settings
from app.jobs.stream import Hub

T = TypeVar("T")

DEFAULT_TENANT = "default"
LONGEST_WAIT_S = 60.0
MOST_ON_A_PAGE = 200
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,9})\"?(?:$|[,;\s])", re.ASCII | re.IGNORECASE)
# Only shown in the OpenAPI document: the contract also takes the bare secret.
_documented = HTTPBearer(auto_error=False, description="The API secret; `Bearer <secret>` or the secret alone.")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, and the id of this request."""

    tenant: str
    request_id: str | None


async def authenticate(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_documented)]
) -> Identity:
    """Raises NotAllowed (401) without the secret."""
    identity = Identity(DEFAULT_TENANT, request_id_of(request.scope))
    secret = get_settings().api_secret.get_secret_value().encode()
    if not secret:
        return identity  # a desk's try-out; any other start refuses this
    given = next((value for name, value in request.headers.raw if name == b"authorization"), b"")
    if not given:
        raise NotAllowed("Missing Authorization header", code=UNAUTHENTICATED)
    if not hmac.compare_digest(given.removeprefix(b"Bearer "), secret):
        raise NotAllowed("Invalid credentials", code=UNAUTHENTICATED)
    return identity


Caller = Annotated[Identity, Depends(authenticate)]


def hub_of(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


async def _hub(request: Request) -> Hub:
    return hub_of(request)


Events = Annotated[Hub, Depends(_hub)]


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: `after` holds what the last page's cursor said."""

    limit: int
    after: list[Any] | None

    def cut(self, rows: Sequence[T], show: Callable[[T], Any], place: Callable[[T], list[Any]]) -> dict[str, Any]:
        """The shape of every list, from up to limit + 1 rows; `place` is what the next page begins after."""
        more = len(rows) > self.limit
        shown = rows[: self.limit]
        return {
            "data": [show(row) for row in shown],
            "next_cursor": encode_cursor(place(shown[-1])) if more else None,
            "has_more": more,
        }


async def page(
    limit: Annotated[int, Query(ge=1, le=MOST_ON_A_PAGE, description="Rows on a page.")] = 50,
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")] = None,
) -> Page:
    return Page(limit, None if cursor is None else decode_cursor(cursor))


Paging = Annotated[Page, Depends(page)]


def encode_cursor(place: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).rstrip(b"=").decode("ascii")


def decode_cursor(cursor: str) -> list[Any]:
    """What encode_cursor was given. Raises InvalidInput for anything else."""
    try:
        place = json.loads(base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise InvalidInput("the cursor is not one of ours", code="cursor") from error
    if not isinstance(place, list):
        raise InvalidInput("the cursor is not one of ours", code="cursor")
    return place


def preferred_wait_s(request: Request) -> float:
    """Seconds the caller wants to wait for the end: `?wait=N`, else `Prefer: wait=N`; at most 60, 0 where unsaid.

    Never raises: by now the work may have been accepted.
    """
    asked = request.query_params.get("wait", "")
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", asked, re.ASCII):
        return min(float(asked), LONGEST_WAIT_S)
    preferred = _PREFER_WAIT.search(request.headers.get("prefer", ""))
    return min(float(preferred[1]), LONGEST_WAIT_S) if preferred else 0.0
