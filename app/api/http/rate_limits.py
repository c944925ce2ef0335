"""How often each route may be asked by one key (by one address, for the API secret), and what the answer says of it."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import HTTPConnection

from app.api.http.errors import OLD_ROUTES, RateLimited
from app.api.http.middleware import EXTRA_HEADERS
from app.core.settings import get_settings
from app.tenants import limits
from app.tenants.limits import Counter, RateLimit

MINUTE_S = 60
# The old service's own limits: its clients know them.
OLD = {
    "POST /api/search": RateLimit(50, MINUTE_S),
    "POST /api/index": RateLimit(1000, MINUTE_S),
    "POST /api/test-index": RateLimit(5, MINUTE_S),
}
OLD_OTHERS = RateLimit(100, MINUTE_S)
NEW = RateLimit(6000, MINUTE_S)


def default(route: str) -> RateLimit:
    """The rate of a route for a key that says nothing of it: `POST /api/search`."""
    return OLD.get(route) or (OLD_OTHERS if route.partition(" ")[2].startswith(OLD_ROUTES) else NEW)


async def count(connection: HTTPConnection, method: str, who: str, own: Mapping[str, str]) -> None:
    """Count this request of `who`, whose key has these limits of its own. Raises RateLimited."""
    if get_settings().rate_limits == "off":
        return
    path: str = connection.scope["route"].path
    rate = limits.of_key(own, f"{method} {path}", default(f"{method} {path}"))
    if rate is None:
        return
    counter: Counter = connection.app.state.counter
    counted = await counter.hit(f"{who}:{method}:{path}", rate)
    policy = _policy(path)
    if counted.left < 0:
        message = f"Rate limit exceeded: {rate}"
        raise RateLimited(message, counted.reset_s, policy=policy, limit=rate.limit, window_s=rate.window_s)
    connection.scope["state"][EXTRA_HEADERS] = [
        (b"ratelimit", f'"{policy}";r={counted.left};t={max(1, round(counted.reset_s))}'.encode()),
        (b"ratelimit-policy", f'"{policy}";q={rate.limit};w={rate.window_s}'.encode()),
    ]


def _policy(path: str) -> str:
    """A name for the policy: the route's own words."""
    words = [word for word in path.split("/") if word and word != "api" and not word.startswith("{")]
    return "-".join(words) or "root"
