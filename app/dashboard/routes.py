"""All routers of the dashboard."""

from __future__ import annotations

from app.core.errors import NotFound
from app.dashboard import assets, door, live
from app.dashboard.pages import account, jobs, knowledge, operations, overview
from app.dashboard.routing import router as make_router

fallback = make_router()


@fallback.get("/{path:path}")
async def show_missing(path: str) -> None:
    """Answer an unknown page below /ui in the frame of the others."""
    raise NotFound(f"There is no page /ui/{path}", code="page_not_found")


# In the order in which they are matched: the sign-in before pages with a parameter, the fallback last.
ROUTERS = (
    assets.router, live.router, door.router, overview.router, jobs.router, operations.router, knowledge.router,
    account.router, fallback,
)  # fmt: skip
