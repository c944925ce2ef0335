"""What routes ask of a request: who calls and may they, which page of a list, how long to wait."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import Depends, Request, Security, WebSocket
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.requests import HTTPConnection

from app.api.http import rate_limits as rates
from app.api.http.app_state import keyring_of
from app.api.http.errors import UNAUTHENTICATED, request_id_of
from app.api.http.middleware import HOLD, TENANT
from app.core.db import read
from app.core.errors import NotAllowed, NotFound
from app.core.settings import get_settings
from app.documents import collections
from app.jobs.ledger import views
from app.tenants import audit, keys, scopes
from app.tenants.keyring import Hold
from app.tenants.models import DEFAULT_TENANT

T = TypeVar("T")

LONGEST_WAIT_S = 60.0
MOST_ON_A_PAGE = 200
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,9})\"?(?:$|[,;\s])", re.ASCII | re.IGNORECASE)
KIND = "kind"
COLLECTION = "collection"
ANY = "any"
# Browsers cannot set headers of WebSockets, so a key may come as a subprotocol: ["millrace", "bearer.KEY"].
BEARER = "bearer."
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
        hold = connection.scope.setdefault("state", {})[HOLD] = Hold(keyring_of(connection), key.id, keys.digest(token))
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


def offered_key(websocket: WebSocket) -> bytes | None:
    """Return the key among the subprotocols that the client offers."""
    keys = [name.removeprefix(BEARER) for name in websocket.scope["subprotocols"] if name.startswith(BEARER)]
    return b"Bearer " + keys[0].encode("latin-1") if keys else None


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
