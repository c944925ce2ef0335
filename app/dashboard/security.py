"""Headers of every page, and the check that a form was sent by one of our own pages."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.requests import Request

from app.core.errors import NotAllowed
from app.core.settings import get_settings

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types millrace"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "Cache-Control": "no-store",
    "Vary": "Cookie",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SAFE_METHODS = frozenset({"GET", "HEAD"})


def check_same_origin(request: Request) -> None:
    """Raise NotAllowed for a form that another site could have sent.

    Browsers send Sec-Fetch-Site to https and to localhost. Elsewhere Origin must be the address of this request.
    """
    if request.method in SAFE_METHODS:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        if site == "same-origin":
            return
        raise NotAllowed("the form was sent by another site", code="cross_site")
    if origin is not None and origin == f"{request.url.scheme}://{request.url.netloc}":
        return
    raise NotAllowed(
        f"the form comes from {origin or 'an unknown place'}, and this page is {request.url.scheme}://"
        f"{request.url.netloc}; a proxy in front must pass Host and X-Forwarded-Proto, and be named in "
        "MILLRACE_TRUSTED_PROXIES",
        code="cross_site",
    )


def check_host(request: Request) -> None:
    """Raise NotAllowed where no secret is set and the name of the host is not this machine's: DNS rebinding."""
    if get_settings().api_secret.get_secret_value():
        return
    host = request.url.hostname or ""
    if host == "localhost" or host == urlsplit(get_settings().api_url).hostname or _is_loopback(host):
        return
    raise NotAllowed(f"without MILLRACE_API_SECRET the dashboard answers to localhost only, not to {host}", code="host")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def next_page(target: str | None) -> str:
    """Return the page to show after the sign-in: a path below /ui, the overview for anything else."""
    if not target or not target.startswith("/ui/") or "\\" in target or ".." in target or not target.isprintable():
        return "/ui/"
    parts = urlsplit(target)
    return target if not parts.scheme and not parts.netloc else "/ui/"
