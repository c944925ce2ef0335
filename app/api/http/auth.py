"""What routes ask of a request: who calls and may they, which page of a list, how long to wait."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request, Security, WebSocket
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.requests import HTTPConnection

from app.api.http import rate_limits as rates
from app.api.http.errors import UNAUTHENTICATED, request_id_of
from app.api.http.middleware import HOLD, TENANT
from app.api.streams.websocket import offered_key
from app.core.db import read
from app.core.errors import InvalidInput, NotAllowed, NotFound
from app.core.settings import get_settings
from app.documents import collections
from app.jobs.events.hub import EventHub
from app.jobs.ledger import views
from app.tenants import audit, keys, scopes
from app.tenants.keyring import KeyLease, Keyring
from app.tenants.models import DEFAULT_TENANT

T = TypeVar("T")

LONGEST_WAIT_S = 60.0
MOST_ON_A_PAGE = 200
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,9})\"?(?:$|[,;\s])", re.ASCII | re.IGNORECASE)
KIND = "kind"
COLLECTION = "collection"
ANY = "any"
# Only shown in the OpenAPI document: the contract also takes the bare secret.
_documented = HTTPBearer(auto_error=False, description="An API key or the API secret; `Bearer <key>` or the key alone.")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, what they may, and the id of this request."""

    tenant: str
    request_id: str | None
    scopes: frozenset[str] = scopes.ALL
    key_id: str | None = None
    rate_limits: Mapping[str, str] = field(default_factory=dict)

    @property
    def actor(self) -> str:
        """As the audit log names them."""
        return self.key_id or audit.SECRET

    def may(self, scope: str) -> bool:
        """Whether they have read, write, admin or operator."""
        return scopes.allows(self.scopes, scope)

    def kinds(self, scope: str) -> tuple[str, ...] | None:
        """The kinds of job they may deal with, as names or beginnings with `*`; None means all."""
        return None if self.may(scope) else scopes.names(self.scopes, KIND)

    def collections(self, scope: str) -> tuple[str, ...] | None:
        """The collections whose documents they may deal with, as names or beginnings with `*`; None means all."""
        return None if self.may(scope) else scopes.names(self.scopes, COLLECTION)

    def may_kind(self, kind: str, scope: str) -> bool:
        """Whether they may look at (`read`) or start and change (`write`) jobs of this kind."""
        given = self.kinds(scope)
        return given is None or scopes.among(kind, given)

    def require_kind(self, kind: str, scope: str = "write") -> None:
        """Raises NotAllowed where `may_kind` says no."""
        if not self.may_kind(kind, scope):
            raise NotAllowed(f"this key may not start jobs of kind {kind}", code="scope_missing")


async def identify(connection: HTTPConnection, given: bytes | None = None) -> Identity:
    """Who is at the other end; `given` stands in for the Authorization header. Raises NotAllowed (401), Unavailable."""
    request_id = request_id_of(connection.scope)
    if given is None:
        headers: list[tuple[bytes, bytes]] = connection.scope["headers"]
        given = next((value for name, value in headers if name == b"authorization"), b"")
    token, secret = given.removeprefix(b"Bearer "), get_settings().api_secret.get_secret_value().encode()
    if secret and hmac.compare_digest(token, secret):
        return Identity(DEFAULT_TENANT, request_id)
    key = await keyring_of(connection).find(token)
    if key is not None:
        hold = KeyLease(keyring_of(connection), key.id, keys.digest(token))
        connection.scope.setdefault("state", {})[HOLD] = hold
        if connection.scope["type"] == "websocket":
            hold.begin()
        return Identity(key.tenant, request_id, key.scopes, key.id, key.rate_limits)
    if not secret and not token.startswith(b"mr_"):
        return Identity(DEFAULT_TENANT, request_id)  # a desk's try-out; any other start refuses this
    if not given:
        raise NotAllowed("Missing Authorization header", code=UNAUTHENTICATED)
    raise NotAllowed("Invalid credentials", code=UNAUTHENTICATED)


async def authenticate(
    request: Request, asked: SecurityScopes, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_documented)]
) -> Identity:
    """Raises NotAllowed: 401 without a key, 403 where it has not the scope that the route asks for; RateLimited."""
    return await _let_in(await identify(request), request, request.method, asked.scopes)


async def authenticate_passing(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_documented)]
) -> Identity:
    """As authenticate(); anybody, counted by address, where MILLRACE_FIRECRAWL_PROXY_AUTH is off."""
    if get_settings().firecrawl_proxy_auth == "on":
        return await _let_in(await identify(request), request, request.method, ())
    client = request.client.host if request.client else "?"
    await rates.count(request, request.method, f"anybody@{client}", {})
    return Identity(DEFAULT_TENANT, request_id_of(request.scope), frozenset())


async def authenticate_socket(websocket: WebSocket, asked: SecurityScopes) -> Identity:
    """The same for a WebSocket, whose key may come as a subprotocol; what refuses it is answered before it opens."""
    return await _let_in(await identify(websocket, offered_key(websocket)), websocket, "GET", asked.scopes)


async def _let_in(identity: Identity, connection: HTTPConnection, method: str, asked: Sequence[str]) -> Identity:
    connection.scope["state"][TENANT] = identity.tenant
    client = connection.client.host if connection.client else "?"
    await rates.count(connection, method, identity.key_id or f"secret@{client}", identity.rate_limits)
    scope, words = needed(method, asked)
    if scope is None or identity.may(scope) or any(scopes.names(identity.scopes, word) for word in words):
        return identity
    job_id = connection.path_params.get("job_id")
    by_name = scopes.names(identity.scopes, KIND) or scopes.names(identity.scopes, COLLECTION)
    if job_id is not None and by_name and scope in (scopes.READ, scopes.WRITE):
        await _check_job(identity, job_id, scope)
        return identity
    raise NotAllowed(f"this key has not the scope '{scope}'", code="scope_missing")


def needed(method: str, asked: Sequence[str]) -> tuple[str | None, list[str]]:
    """The scope that a route needs (read or write by its method, where it says nothing), and the words whose names do
    as well: kind, collection."""
    if ANY in asked:
        return None, []
    words = [scope for scope in asked if scope in (KIND, COLLECTION)]
    named = [scope for scope in asked if scope not in words]
    by_method = scopes.READ if method in ("GET", "HEAD") else scopes.WRITE
    return (named[0] if named else by_method), words


async def _check_job(identity: Identity, job_id: str, scope: str) -> None:
    """Raises NotFound unless the job is of a kind, or about a document in a collection, that the key may deal with."""
    row = await read(views.get, identity.tenant, job_id)
    if identity.may_kind(row.kind, scope):
        return
    names = identity.collections(scope)
    if not names or not await read(collections.has_job, row, names):
        raise NotFound(f"Job {job_id} not found", code="job_not_found")


# A route takes one of these. Caller: `read` for GET, else `write`; keys for single kinds reach the jobs of their kinds
# at routes with a {job_id}.
Caller = Annotated[Identity, Security(authenticate)]
# As Caller, for what is passed on to Firecrawl.
PassingCaller = Annotated[Identity, Security(authenticate_passing)]
# As Caller, and keys for single kinds come in too: the route itself looks at `caller.kinds(...)` or `require_kind`.
KindCaller = Annotated[Identity, Security(authenticate, scopes=[KIND])]
# As Caller and Reader, and keys for single collections come in too: the route looks at `caller.collections(...)`.
CollectionCaller = Annotated[Identity, Security(authenticate, scopes=[COLLECTION])]
CollectionReader = Annotated[Identity, Security(authenticate, scopes=[scopes.READ, COLLECTION])]
# Caller and KindCaller for WebSockets.
SocketCaller = Annotated[Identity, Security(authenticate_socket)]
SocketKindCaller = Annotated[Identity, Security(authenticate_socket, scopes=[KIND])]
# `read`, whatever the method.
Reader = Annotated[Identity, Security(authenticate, scopes=[scopes.READ])]
# `admin`: the tenant's own keys, its audit log.
Admin = Annotated[Identity, Security(authenticate, scopes=[scopes.ADMIN])]
# `operator`: what is everybody's, such as tenants, queues and workers.
Operator = Annotated[Identity, Security(authenticate, scopes=[scopes.OPERATOR])]
# Whoever has any key.
Anyone = Annotated[Identity, Security(authenticate, scopes=[ANY])]


async def _keyring(request: Request) -> Keyring:
    return keyring_of(request)


Keys = Annotated[Keyring, Depends(_keyring)]


def keyring_of(connection: HTTPConnection) -> Keyring:
    keyring: Keyring = connection.app.state.keyring
    return keyring


def hub_of(request: Request) -> EventHub:
    hub: EventHub = request.app.state.hub
    return hub


async def _hub(request: Request) -> EventHub:
    return hub_of(request)


async def _hub_of_socket(websocket: WebSocket) -> EventHub:
    hub: EventHub = websocket.app.state.hub
    return hub


Events = Annotated[EventHub, Depends(_hub)]
SocketEvents = Annotated[EventHub, Depends(_hub_of_socket)]


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
