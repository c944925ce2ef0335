"""The overview: what needs a person now, then how the system runs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, NamedTuple

from fastapi import Request, Response
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import read
from app.dashboard import texts
from app.dashboard.frame import page
from app.dashboard.routing import router as make_router
from app.dashboard.visitor import Reader, Visitor
from app.documents import catalog
from app.documents.accept.quota import usage
from app.jobs.inspect import dead_letters, queue_stats, reason
from app.jobs.inspect.reason import Services
from app.jobs.ledger import views, workers

router = make_router()

SHOWN_ROWS = 5
# The oldest queued job may wait this long before the overview names its queue.
MAX_USUAL_WAIT_S = 300.0


class Attention(NamedTuple):
    """Something that a person should see: the fact, the fix, and the page that shows it."""

    severity: str
    message: str
    fix: str
    link: str


@router.get("/")
async def show_overview(request: Request, visitor: Reader) -> Response:
    services = await asyncio.to_thread(reason.check_services)
    data = await read(_data, visitor, services)
    return page(request, "overview.html", visitor=visitor, now=clock.now(), **data)


def _data(session: Session, visitor: Visitor, services: Services) -> dict[str, Any]:
    tenant = visitor.tenant
    running = views.JobFilter(states=["running"])
    latest = views.JobFilter()
    groups = dead_letters.list_groups(session, tenant, limit=SHOWN_ROWS)
    data: dict[str, Any] = {
        "running": [views.job_view(row) for row in views.list_jobs(session, tenant, running, SHOWN_ROWS)],
        "latest": [views.job_view(row) for row in views.list_jobs(session, tenant, latest, SHOWN_ROWS)],
        "groups": groups,
        "documents": catalog.count(session, tenant),
        "usage": usage(session, tenant),
        "queues": [],
        "workers": [],
    }
    if visitor.may("operator"):
        data["queues"] = queue_stats.read_queue_stats(session)
        data["workers"] = workers.list_workers(session, limit=50)
    data["attention"] = _attention(services, data)
    return data


def _attention(services: Services, data: dict[str, Any]) -> list[Attention]:
    """Return what needs a person, the worst first."""
    cards: list[Attention] = []
    if services.sql_fault:
        message, fix = f"The database {services.sql_fault}: no job can begin or end.", "Free disk space."
        cards.append(Attention("fail", message, fix, "/ui/"))
    if services.redis_fault:
        message = f"Redis: {services.redis_fault}. Jobs are accepted and wait; nothing is lost."
        cards.append(Attention("fail", message, "Start Redis, or make it take writes.", "/ui/"))
    elif not services.relay:
        message = "No relay runs: due and retried jobs wait."
        cards.append(
            Attention("fail", message, "Start one with `millrace relay`.", "/ui/jobs?state=scheduled,retrying")
        )
    for queue in data["queues"]:
        cards += _of_queue(queue)
    for worker in data["workers"]:
        if worker["silent_s"] is not None and worker["silent_s"] > 30:
            silence = texts.span(worker["silent_s"])
            message = f"Worker {worker['host']} (pid {worker['pid']}) has been silent for {silence}."
            cards.append(Attention("warn", message, "Check that host; its jobs go to others.", "/ui/workers"))
    recent = clock.now() - timedelta(hours=1)
    new = [group for group in data["groups"] if texts.parse(group["last_seen"]) > recent]
    if new:
        count = sum(group["count"] for group in new)
        message = f"{count} failed jobs in {len(new)} groups had new failures in the last hour."
        cards.append(Attention("warn", message, "Read the error, fix its cause, and retry the group.", "/ui/failures"))
    return sorted(cards, key=lambda card: card.severity != "fail")


def _of_queue(queue: dict[str, Any]) -> list[Attention]:
    link = f"/ui/jobs?state=queued&queue={queue['name']}"
    if not queue["queued"]:
        return []
    if queue["paused"]:
        by = f" by {queue['paused']['by']}" if queue["paused"]["by"] else ""
        message = f"Queue {queue['name']} was paused{by}, and {queue['queued']} jobs wait in it."
        return [Attention("warn", message, "Resume it on the page of queues.", "/ui/queues")]
    if not queue["slots"]:
        message = f"{queue['queued']} jobs wait in queue {queue['name']}, and no worker serves it."
        return [Attention("fail", message, "Start a worker: `millrace worker`.", link)]
    if queue["oldest_s"] > MAX_USUAL_WAIT_S:
        message = f"The oldest job of queue {queue['name']} has waited for {texts.span(queue['oldest_s'])}."
        return [Attention("warn", message, "Start more workers, or look what fills the slots.", link)]
    return []
