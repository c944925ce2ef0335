"""The account of the visitor, its sessions and settings of the pages; the audit log."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Form, Query, Request, Response
from sqlalchemy.orm import Session

from app.core.clock import moment
from app.core.db import read
from app.core.errors import InvalidInput
from app.dashboard import texts
from app.dashboard.frame import THEME_COOKIE, THEMES, ZONE_COOKIE, page
from app.dashboard.listing import PAGE_ROWS, before_number, cut
from app.dashboard.routing import router as make_router
from app.dashboard.routing import see_other
from app.dashboard.security import next_page
from app.dashboard.visitor import Admin, SomeVisitor, Visitor
from app.documents.accept.quota import usage
from app.tenants import audit, sessions

router = make_router()

COOKIE_AGE_S = 400 * 86400


@router.get("/me")
async def show_account(request: Request, visitor: SomeVisitor) -> Response:
    data = await read(_account, visitor)
    return page(request, "account.html", visitor=visitor, zones=texts.COMMON_ZONES, **data)


def _account(session: Session, visitor: Visitor) -> dict[str, Any]:
    rows = sessions.list_of_key(session, tenant=visitor.tenant, key_id=visitor.identity.key_id)
    return {
        "sessions": [
            {
                "id": row.id,
                "created_at": moment(row.created_at),
                "seen_at": moment(row.seen_at),
                "address": row.address,
                "agent": row.agent,
                "is_this": row.id == visitor.session_id,
            }
            for row in rows
        ],
        "usage": usage(session, visitor.tenant),
        "scopes": sorted(visitor.identity.scopes),
    }


@router.post("/me/settings")
async def change_settings(
    request: Request,
    _: SomeVisitor,
    theme: Annotated[str, Form()] = "auto",
    zone: Annotated[str, Form(max_length=100)] = "UTC",
    back: Annotated[str, Form(max_length=2000)] = "/ui/me",
) -> Response:
    """Store theme and zone in cookies, which pages without scripts obey, too."""
    if theme not in THEMES:
        raise InvalidInput(f"theme must be one of {', '.join(THEMES)}", code="theme")
    if texts.zone_of(zone) is None:
        raise InvalidInput(f"{zone!r} is not a time zone, such as Europe/Berlin", code="timezone")
    answer = see_other(next_page(back))
    is_secure = request.url.scheme == "https"
    for name, value in ((THEME_COOKIE, theme), (ZONE_COOKIE, zone)):
        answer.set_cookie(name, value, max_age=COOKIE_AGE_S, path="/ui", secure=is_secure, samesite="lax")
    return answer


@router.get("/audit")
async def show_audit(
    request: Request,
    visitor: Admin,
    action: Annotated[str, Query(max_length=64)] = "",
    actor: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    rows = await read(_entries, visitor, action or None, actor or None, before_number(request))
    listing = cut(request, rows, lambda row: row, lambda row: row["id"])
    return page(request, "audit.html", visitor=visitor, listing=listing, action=action, actor=actor)


def _entries(
    session: Session, visitor: Visitor, action: str | None, actor: str | None, before_id: int | None
) -> list[dict[str, Any]]:
    tenant = None if visitor.may("operator") else visitor.tenant
    rows = audit.entries(session, tenant=tenant, action=action, actor=actor, before_id=before_id, limit=PAGE_ROWS + 1)
    names = ("id", "tenant", "actor", "action", "subject", "details", "request_id")
    return [{name: getattr(row, name) for name in names} | {"at": moment(row.at)} for row in rows]
