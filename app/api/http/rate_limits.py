"""Rate limits of each route by key (by address for the API secret), and their headers."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import HTTPConnection

from app.api.http.errors import OLD_ROUTES, RateLimited
from app.api.http.middleware import EXTRA_HEADERS
from app.core.settings import get_settings
from app.tenants import limits
from app.tenants.limits import Counter, RateLimit

MINUTE_S = 60
# The limits of the old service, which its clients know.
OLD_RATES = {
    "POST /api/search": RateLimit(50, MINUTE_S),
    "POST /api/index": RateLimit(1000, MINUTE_S),
    "POST /api/test-index": RateLimit(5, MINUTE_S),
}
OLD_DEFAULT = RateLimit(100, MINUTE_S)
NEW_DEFAULT = RateLimit(6000, MINUTE_S)


def default_rate(route: str) -> RateLimit:
    """Return the rate of a route, such as `POST /api/search`, for a key without a rate for it."""
    return OLD_RATES.get(route) or (OLD_DEFAULT if route.partition(" ")[2].startswith(OLD_ROUTES) else NEW_DEFAULT)


async def count(connection: HTTPConnection, method: str, caller: str, own: Mapping[str, str]) -> None:
    """Count this request of the caller; `own` are the limits of its key. Raises RateLimited."""
    if get_settings().rate_limits == "off":
        return
    path: str = connection.scope["route"].path
    rate = limits.of_key(own, f"{method} {path}", default_rate(f"{method} {path}"))
    if rate is None:
        return
    counter: Counter = connection.app.state.counter
    window = await counter.hit(f"{caller}:{method}:{path}", rate)
    policy = _policy(path)
    if window.left < 0:
        message = f"Rate limit exceeded: {rate}"
        raise RateLimited(message, window.reset_s, policy=policy, limit=rate.limit, window_s=rate.window_s)
    connection.scope["state"][EXTRA_HEADERS] = [
        (b"ratelimit", f'"{policy}";r={window.left};t={max(1, round(window.reset_s))}'.encode()),
        (b"ratelimit-policy", f'"{policy}";q={rate.limit};w={rate.window_s}'.encode()),
    ]


def _policy(path: str) -> str:
    """Return the name of the policy: the words of the route."""
    words = [word for word in path.split("/") if word and word != "api" and not word.startswith("{")]
    return "-".join(words) or "root"
