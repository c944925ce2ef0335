"""Liveness, readiness and metrics of this process. Open without a key: no answer names a secret or an address."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from sqlalchemy.exc import SQLAlchemyError

from app import __version__
from app.api.http.app_state import hub_of
from app.api.http.errors import problem
from app.api.models.base import documented
from app.api.models.health import HealthDetail, Liveness, Readiness, ServiceInfo
from app.clients.qdrant_errors import QdrantUnavailable
from app.core import clock, http, metrics, redis, schema
from app.core.blobs import blobs
from app.core.clock import moment
from app.core.db import read
from app.core.errors import ConfigError, Rejected, Unavailable
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.core.telemetry import joint_metrics
from app.documents.files import shared_store
from app.jobs.ledger.write_probe import write_fault
from app.search.embedders import embedder
from app.search.engine import engine
from app.search.engines.base import Lag
from app.search.index.generations import active

log = get_logger(__name__)
router = APIRouter(tags=["health"])

SQL_TIMEOUT_S = 2.0
SEARCH_TIMEOUT_S = 2.0
EMBEDDER_INTERVAL_S = 30.0
WRITE_INTERVAL_S = 2.0
# The metrics of the index are taken once in this many samples.
SEARCH_INTERVAL_SAMPLES = 40
LAG_SAMPLE_S = 0.25
# The lag shown is the worst of this many samples.
LAG_SAMPLES = 40
OK = "healthy"
# Embedders that are servers.
REMOTE = ("tei", "openai")


class HealthProbe:
    """Measures the lag of the event loop and asks the services; at most one question to SQL is open at a time."""

    def __init__(self) -> None:
        self._lags = [0.0] * LAG_SAMPLES
        self._sampling: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[str] | None = None
        self._redis = (-math.inf, OK)
        self._embedder = (-math.inf, OK)
        self._is_store_shared = False
        self.peers = http.async_client(joint_metrics.TIMEOUT_S)
        self._asking_search: asyncio.Task[tuple[str, Lag | None]] | None = None

    def start(self) -> None:
        self._sampling = asyncio.create_task(self._sample(), name="loop-lag")

    async def close(self) -> None:
        tasks = [task for task in (self._sampling, self._asking, self._asking_search) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.peers.aclose()

    @property
    def lag_s(self) -> float:
        return max(self._lags)

    async def _sample(self) -> None:
        turn = 0
        while True:
            if turn % SEARCH_INTERVAL_SAMPLES == 0:
                self._asking_search = asyncio.create_task(self.search(), name="ask-search")
            begun = clock.monotonic()
            await asyncio.sleep(LAG_SAMPLE_S)
            self._lags[turn % LAG_SAMPLES] = max(0.0, clock.monotonic() - begun - LAG_SAMPLE_S)
            metrics.LOOP_LAG_SECONDS.set(self.lag_s)
            turn += 1

    async def search(self) -> tuple[str, Lag | None]:
        """Return `healthy` or the fault, and the lag of the index; no lag for the embedded engine."""
        if get_settings().search_engine == "embedded":
            return OK, None
        try:
            search_engine, generation = await asyncio.to_thread(engine), await active()
            lag = await asyncio.wait_for(search_engine.lag(generation), SEARCH_TIMEOUT_S)
        except TimeoutError:
            return self._search_down("no answer")
        except (Unavailable, Rejected) as error:
            log.warning("search_not_usable", reason=error.message)
            return self._search_down("not reachable" if isinstance(error, QdrantUnavailable) else error.message)
        metrics.SEARCH_UP.set(1)
        metrics.SEARCH_CHANGES_BEHIND.set(lag.changes)
        metrics.SEARCH_SECONDS_BEHIND.set(lag.seconds)
        return OK, lag

    async def redis(self) -> str:
        """Return `healthy` or why Redis takes no writes, as of the last seconds."""
        if clock.monotonic() - self._redis[0] > WRITE_INTERVAL_S:
            fault = await asyncio.to_thread(redis.push().refusal)
            if fault is not None and fault != self._redis[1]:
                log.warning("redis_not_usable", reason=fault)
            self._redis = clock.monotonic(), fault or OK
        return self._redis[1]

    async def embedder(self) -> str:
        """Return `healthy` or the fault of the embeddings server; at most two calls a minute."""
        if clock.monotonic() - self._embedder[0] > EMBEDDER_INTERVAL_S:
            self._embedder = clock.monotonic(), await _ask_embedder()
        return self._embedder[1]

    async def originals(self) -> str:
        """Return `healthy`, or the fault if workers cannot read what this api writes; asked until it is healthy."""
        if not self._is_store_shared:
            try:
                await asyncio.wait_for(asyncio.to_thread(shared_store.require_shared), SQL_TIMEOUT_S)
            except TimeoutError:
                return "no answer"
            except ConfigError as error:
                log.warning("originals_not_usable", reason=error.message)
                return "not shared with the workers"
            except Unavailable as error:
                log.warning("originals_not_usable", reason=error.message)
                return "not reachable"
            self._is_store_shared = True
        return OK

    def _search_down(self, reason: str) -> tuple[str, None]:
        metrics.SEARCH_UP.set(0)
        metrics.SEARCH_CHANGES_BEHIND.forget()
        metrics.SEARCH_SECONDS_BEHIND.forget()
        return reason, None

    async def sql(self) -> str:
        """Return `healthy` or the fault. If the answer takes more than 2 s, the next call waits for the same answer."""
        if self._asking is None:
            self._asking = asyncio.create_task(_ask_sql(), name="ask-sql")
        asking = self._asking
        await asyncio.wait([asking], timeout=SQL_TIMEOUT_S)
        if not asking.done():
            return "no answer"
        self._asking = None
        return asking.result()


async def _ask_sql() -> str:
    try:
        return await read(schema.fault) or await asyncio.to_thread(write_fault) or OK
    except (Unavailable, ConfigError) as error:
        log.warning("sql_not_usable", reason=error.message)
        return "not reachable"
    except SQLAlchemyError as error:
        log.warning("sql_not_usable", reason=str(error))
        return "no schema: run `millrace migrate`"


def _probe(request: Request) -> HealthProbe:
    probe: HealthProbe = request.app.state.probe
    return probe


async def _services(request: Request) -> tuple[dict[str, str], Lag | None]:
    """Return the state of each service in use, and the lag of an index outside of SQL."""
    redis_state = await _probe(request).redis() if hub_of(request).has_redis else "not reachable"
    services, lag = {"sql": await _probe(request).sql(), "redis": redis_state}, None
    if get_settings().search_engine != "embedded" and services["sql"] == OK:
        services["search"], lag = await _probe(request).search()
    if get_settings().blob_url.startswith("s3:"):
        services["originals"] = await _ask_originals()
    if services["sql"] == OK and services.get("originals", OK) == OK:
        originals = await _probe(request).originals()
        services |= {"originals": originals} if originals != OK else {}
    return services, lag


async def _ask_originals() -> str:
    try:
        await asyncio.wait_for(blobs().ping(), SQL_TIMEOUT_S)
    except TimeoutError:
        return "no answer"
    except (Unavailable, ConfigError) as error:
        log.warning("originals_not_usable", reason=error.message)
        return "not reachable"
    return OK


async def _ask_embedder() -> str:
    try:
        await asyncio.wait_for((await asyncio.to_thread(embedder)).ping(), SQL_TIMEOUT_S)
    except TimeoutError:
        return "no answer"
    except Unavailable:
        return "not reachable"
    except (Rejected, ConfigError) as error:
        return error.message
    return OK


@router.get(
    "/",
    summary="Get name and version of the service",
    responses={200: documented(ServiceInfo), 303: {"description": "A browser, which prefers HTML: to the dashboard."}},
)
async def get_service_info(request: Request) -> Any:
    """A browser, which prefers HTML, is sent to the dashboard."""
    if request.headers.get("accept", "").startswith("text/html"):
        return RedirectResponse("/ui/", status_code=303)
    return {"service": "Millrace", "version": __version__, "status": "running", "docs": "/docs", "health": "/health"}


@router.get("/livez", summary="Check that the process answers", responses={200: documented(Liveness)})
async def get_liveness() -> dict[str, str]:
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="Check that all needed services are usable",
    responses={200: documented(Readiness), 503: {"description": "A service is not usable."}},
)
async def get_readiness(request: Request) -> Response:
    services, _ = await _services(request)
    missing = [name for name, state in services.items() if state != OK]
    if not missing:
        return JSONResponse({"status": "ready", "services": services})
    detail = "not ready: " + ", ".join(f"{name} ({services[name]})" for name in missing)
    return problem(request.scope, 503, detail, code="not_ready", missing=missing, headers={"Retry-After": "1"})


@router.get(
    "/health",
    summary="Get the state of the services and numbers of this process; always 200",
    responses={200: documented(HealthDetail)},
)
async def get_health(request: Request) -> dict[str, Any]:
    services, lag = await _services(request)
    if (
        get_settings().embedder in REMOTE
    ):  # not in /readyz: without it searches fall back to words, and their answers report it
        services["embedder"] = await _probe(request).embedder()
    behind = None if lag is None else {"changes": lag.changes, "seconds": round(lag.seconds, 1)}
    return {
        "status": OK if all(state == OK for state in services.values()) else "degraded",
        "services": services,
        "timestamp": moment(clock.now()),
        "search": {"engine": get_settings().search_engine, "behind": behind},
        "role": get_settings().role or "api",
        "version": __version__,
        "threads": threading.active_count(),
        "loop_lag_ms": round(_probe(request).lag_s * 1000, 2),
        "streams": hub_of(request).subscriber_count,
    }


@router.get("/metrics", summary="Get Prometheus metrics", response_class=PlainTextResponse)
async def get_prometheus_metrics(request: Request) -> Response:
    """Next to other programs under one supervisord, this answer has the metrics of all of them."""
    ports = get_settings().health_ports
    if not ports:
        return Response(metrics.render("api"), media_type=metrics.CONTENT_TYPE)
    text = await joint_metrics.read(_probe(request).peers, ports)
    return Response(text, media_type=metrics.CONTENT_TYPE)
