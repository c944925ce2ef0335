"""Rendering of a page in the frame that all pages share: navigation, tenant, zone, theme."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

from heroicons.jinja import heroicon_micro
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from app import __version__
from app.core.settings import get_settings
from app.dashboard import texts
from app.dashboard.assets import assets
from app.dashboard.security import HEADERS
from app.dashboard.visitor import Visitor

THEME_COOKIE, ZONE_COOKIE = "millrace_theme", "millrace_zone"
THEMES = ("auto", "light", "dark")
STATE_ICONS = {
    "scheduled": "clock",
    "queued": "ellipsis-horizontal-circle",
    "running": "play-circle",
    "waiting": "user-group",
    "retrying": "arrow-path",
    "succeeded": "check-circle",
    "failed": "x-circle",
    "cancelled": "no-symbol",
}


class NavItem(NamedTuple):
    """An entry of the navigation; `scope` is what a visitor needs to see it."""

    path: str
    label: str
    icon: str
    scope: str
    starts_group: bool = False


NAVIGATION = (
    NavItem("/ui/", "Overview", "home", "read"),
    NavItem("/ui/jobs", "Jobs", "queue-list", "read"),
    NavItem("/ui/failures", "Failures", "x-circle", "read"),
    NavItem("/ui/queues", "Queues", "inbox-stack", "operator"),
    NavItem("/ui/workers", "Workers", "cpu-chip", "operator"),
    NavItem("/ui/schedules", "Schedules", "calendar", "read"),
    NavItem("/ui/search", "Search", "magnifying-glass", "read", starts_group=True),
    NavItem("/ui/documents", "Documents", "document-text", "read"),
    NavItem("/ui/collections", "Collections", "folder", "read"),
    NavItem("/ui/audit", "Audit", "clipboard-document-list", "admin", starts_group=True),
    NavItem("/ui/me", "Account", "user", "read"),
)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the template environment: everything is escaped, and a missing value is an error."""
    made = Environment(
        loader=PackageLoader("app.dashboard"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.globals |= {
        "asset": assets().url,
        "icon": heroicon_micro,
        "state_icons": STATE_ICONS,
        "themes": THEMES,
        "version": __version__,
        "between": texts.between,
    }
    for name in ("relative", "duration", "size", "number", "span", "mask"):
        made.filters[name] = getattr(texts, name)
    made.filters["json"] = texts.as_json
    return made


def zone_of(request: Request) -> str:
    """Return the zone in which times are shown: that of the cookie, else UTC."""
    name = request.cookies.get(ZONE_COOKIE, "UTC")
    return name if texts.zone_of(name) is not None else "UTC"


def theme_of(request: Request) -> str:
    theme = request.cookies.get(THEME_COOKIE, "auto")
    return theme if theme in THEMES else "auto"


def page(
    request: Request,
    template: str,
    *,
    visitor: Visitor | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **data: Any,
) -> HTMLResponse:
    """Return a page. `data` are the values of its template."""
    zone = zone_of(request)
    shown = [item for item in NAVIGATION if visitor is not None and visitor.may(item.scope)]
    message = request.query_params.get("message", "")[:300]
    html = (
        environment()
        .get_template(template)
        .render(
            visitor=visitor,
            navigation=shown,
            path=request.url.path,
            query=dict(request.query_params),
            here=str(request.url.path) + (f"?{request.url.query}" if request.url.query else ""),
            theme=theme_of(request),
            zone=zone,
            absolute=partial(texts.absolute, zone=zone),
            message=message,
            api_url=get_settings().api_url,
            **data,
        )
    )
    return HTMLResponse(html, status_code=status, headers={**HEADERS, **(headers or {})})
