"""Authentication and scopes of API callers."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request, Security, WebSocket
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.requests import HTTPConnection
from starlette.types import Scope

from app.api.http import rate_limits as rates
from app.api.http.app_state import keyring_of
from app.api.http.errors import request_id_of
from app.api.http.middleware import HOLD, TENANT
from app.core.db import read
from app.core.errors import NotAllowed, NotFound, Unauthenticated, Unavailable
from app.core.network.addresses import network_of
from app.core.settings import get_settings
from app.documents import collections
from app.jobs.ledger import views
from app.tenants import keys, scopes
from app.tenants.identity import Identity as Identity
from app.tenants.keyring import KeyLease
from app.tenants.models import DEFAULT_TENANT

KIND = "kind"
COLLECTION = "collection"
ANY = "any"
# Browsers cannot set headers of WebSockets, so a key may come as a subprotocol: ["millrace", "bearer.KEY"].
BEARER = "bearer."
# Webhooks, whose signature is that of the body.
SIGNED_PATHS = ("/api/webhook/",)
# Only for the OpenAPI document: the old contract also accepts the secret without `Bearer`.
_documented = HTTPBearer(auto_error=False, description="An API key or the API secret; `Bearer <key>` or the key alone.")


async def identify(connection: HTTPConnection, credentials: bytes | None = None) -> Identity:
    """Return the caller. `credentials` replaces the Authorization header. Raises Unauthenticated, Unavailable."""
    request_id = request_id_of(connection.scope)
    if credentials is None:
        headers: list[tuple[bytes, bytes]] = connection.scope["headers"]
        credentials = next((value for name, value in headers if name == b"authorization"), b"")
    token, secret = credentials.removeprefix(b"Bearer "), get_settings().api_secret.get_secret_value().encode()
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
        return Identity(DEFAULT_TENANT, request_id)  # demo mode; any other start refuses an empty secret
    if not credentials:
        raise Unauthenticated("Missing Authorization header")
    raise Unauthenticated("Invalid credentials")


async def may_send_large_body(scope: Scope) -> bool:
    """Return True if the request has valid credentials, or goes to a route that checks them otherwise."""
    path: str = scope["path"]
    if path.startswith(SIGNED_PATHS) or (path.startswith("/v2/") and get_settings().firecrawl_proxy_auth == "off"):
        return True
    try:
        await identify(HTTPConnection(scope))
    except Unauthenticated:
        return False
    except Unavailable:
        return True  # the route answers that it cannot be checked now
    return True


async def authenticate(
    request: Request, required: SecurityScopes, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_documented)]
) -> Identity:
    """Return the caller. Raises Unauthenticated (401), NotAllowed (403) without the scope, RateLimited (429)."""
    return await _authorize(await identify(request), request, request.method, required.scopes)


async def authenticate_proxy(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_documented)]
) -> Identity:
    """Like authenticate(). With MILLRACE_FIRECRAWL_PROXY_AUTH off, callers need no key and are counted by address."""
    if get_settings().firecrawl_proxy_auth == "on":
        return await _authorize(await identify(request), request, request.method, ())
    client = request.client.host if request.client else "?"
    await rates.count(request, request.method, f"anybody@{network_of(client)}", {})
    return Identity(DEFAULT_TENANT, request_id_of(request.scope), frozenset())


def offered_key(websocket: WebSocket) -> bytes | None:
    """Return the key among the subprotocols that the client offers."""
    keys = [name.removeprefix(BEARER) for name in websocket.scope["subprotocols"] if name.startswith(BEARER)]
    return b"Bearer " + keys[0].encode("latin-1") if keys else None


async def authenticate_socket(websocket: WebSocket, required: SecurityScopes) -> Identity:
    """Like authenticate() for a WebSocket, whose key may be a subprotocol. A refusal is sent before it opens."""
    return await _authorize(await identify(websocket, offered_key(websocket)), websocket, "GET", required.scopes)


async def _authorize(identity: Identity, connection: HTTPConnection, method: str, required: Sequence[str]) -> Identity:
    connection.scope["state"][TENANT] = identity.tenant
    client = connection.client.host if connection.client else "?"
    await rates.count(connection, method, identity.key_id or f"secret@{network_of(client)}", identity.rate_limits)
    scope, words = needed_scope(method, required)
    if scope is None or identity.may(scope) or any(scopes.names(identity.scopes, word) for word in words):
        return identity
    job_id = connection.path_params.get("job_id")
    by_name = scopes.names(identity.scopes, KIND) or scopes.names(identity.scopes, COLLECTION)
    if job_id is not None and by_name and scope in (scopes.READ, scopes.WRITE):
        await _check_job(identity, job_id, scope)
        return identity
    raise NotAllowed(f"this key needs the scope '{scope}'", code="scope_missing")


def needed_scope(method: str, required: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the scope that a route needs, and the words (kind, collection) whose names suffice as well.

    A route without a scope needs read or write, by its method.
    """
    if ANY in required:
        return None, []
    words = [scope for scope in required if scope in (KIND, COLLECTION)]
    named = [scope for scope in required if scope not in words]
    by_method = scopes.READ if method in ("GET", "HEAD") else scopes.WRITE
    return (named[0] if named else by_method), words


async def _check_job(identity: Identity, job_id: str, scope: str) -> None:
    """Raises NotFound unless the key reaches the job's kind, or the collection of its document."""
    row = await read(views.get, identity.tenant, job_id)
    if identity.may_kind(row.kind, scope):
        return
    names = identity.collections(scope)
    if not names or not await read(collections.has_job, row, names):
        raise NotFound(f"Job {job_id} not found", code="job_not_found")


# Each route takes one of these. Caller: `read` for GET, else `write`. Keys for single kinds reach the jobs of their
# kinds at routes with a {job_id}.
Caller = Annotated[Identity, Security(authenticate)]
# Like Caller, for requests that are passed on to Firecrawl.
ProxyCaller = Annotated[Identity, Security(authenticate_proxy)]
# Like Caller, and open to keys for single kinds: the route checks the kind itself.
KindCaller = Annotated[Identity, Security(authenticate, scopes=[KIND])]
# Like Caller and Reader, and open to keys for single collections: the route checks `caller.collections(...)`.
CollectionCaller = Annotated[Identity, Security(authenticate, scopes=[COLLECTION])]
CollectionReader = Annotated[Identity, Security(authenticate, scopes=[scopes.READ, COLLECTION])]
# Caller and KindCaller for WebSockets.
SocketCaller = Annotated[Identity, Security(authenticate_socket)]
SocketKindCaller = Annotated[Identity, Security(authenticate_socket, scopes=[KIND])]
# `read`, whatever the method.
Reader = Annotated[Identity, Security(authenticate, scopes=[scopes.READ])]
# `admin`: the tenant's own keys, its audit log.
Admin = Annotated[Identity, Security(authenticate, scopes=[scopes.ADMIN])]
# `operator`: shared things such as tenants, queues and workers.
Operator = Annotated[Identity, Security(authenticate, scopes=[scopes.OPERATOR])]
# Any valid key.
Anyone = Annotated[Identity, Security(authenticate, scopes=[ANY])]
