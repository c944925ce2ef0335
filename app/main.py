"""The api process: `uvicorn app.main:app`, or `millrace api`."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

from fastapi import FastAPI, WebSocket
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from app import __version__
from app.api.http import docs_page, openapi
from app.api.http.auth import may_send_large_body
from app.api.http.errors import HANDLERS
from app.api.http.middleware import RequestMiddleware
from app.api.routes.admin import health, keys, metrics, tenants
from app.api.routes.documents import batch, collections, content, delete_many, documents, uploads, versions
from app.api.routes.jobs import bulk, events, explain, jobs, queues, schedules, start, webhooks, workers
from app.api.routes.search import generations, index, search
from app.api.routes.web import crawl_metrics, crawls, deliveries, firecrawl_proxy, scrape, watches
from app.clients.changedetection import close_changedetection
from app.clients.firecrawl import close_firecrawl
from app.core import logging, redis
from app.core.db import close_database, database
from app.core.errors import ConfigError, NotFound, Unavailable
from app.core.process import hide_memory, leave, leave_when_overdue
from app.core.settings import get_settings
from app.core.telemetry import setup as telemetry
from app.dashboard import routes as dashboard
from app.documents.files import shared_store
from app.jobs import functions
from app.jobs.events.hub import EventHub
from app.jobs.sandbox import process_pool
from app.metrics.requests import RequestRecorder
from app.search.embedders import close_embedder
from app.search.engine import engine
from app.tenants.keyring import Keyring
from app.tenants.limits import Counter

log = logging.get_logger(__name__)

# Headers of an answer that scripts in browsers may read.
EXPOSED_HEADERS = (
    "Location",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "X-Request-ID",
    "X-Process-Time",
    "Idempotency-Replayed",
)
SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A stop takes at most this long beyond the grace period.
MAX_STOP_S = 8.0


class Api(FastAPI):
    """FastAPI with one layer around it instead of five: `RequestMiddleware` outside, the error table inside.

    FastAPI's outermost layer answers an unexpected error and raises it again; here the error table answers it.
    """

    def build_middleware_stack(self) -> ASGIApp:
        settings = get_settings()
        inner = AsyncExitStackMiddleware(self.router)
        stack: ASGIApp = ExceptionMiddleware(inner, handlers=self.exception_handlers)
        if settings.cors_origins:
            stack = CORSMiddleware(
                stack,
                allow_origins=settings.cors_origins,
                allow_credentials="*" not in settings.cors_origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=EXPOSED_HEADERS,
            )
        # A form may hold several files, and its parts have headers.
        upload_limit = max(settings.max_body_bytes, 2 * settings.max_upload_bytes)
        body_limits = {
            uploads.PATH: upload_limit,
            batch.PATH: upload_limit,
            deliveries.FIRECRAWL: deliveries.MAX_EVENT_BYTES,
        }
        recorder: RequestRecorder = self.state.recorder
        record = recorder.add if settings.metrics_requests == "on" else None
        return RequestMiddleware(
            stack,
            max_body_bytes=settings.max_body_bytes,
            body_limits=body_limits,
            record=record,
            is_known=may_send_large_body,
        )

    def openapi(self) -> dict[str, Any]:
        return openapi.document(self)


def create_app() -> FastAPI:
    """Return the application. Raises ConfigError if this process may not serve it."""
    settings = get_settings()
    if settings.role not in ("", "api", "cli"):
        raise ConfigError(f"MILLRACE_ROLE is '{settings.role}': this process may not serve the API")
    functions.import_modules(settings.modules)
    app = Api(
        title="Millrace",
        version=__version__,
        description="Background work and knowledge in one engine: durable jobs, live progress, hybrid search.",
        lifespan=_lifespan,
        generate_unique_id_function=openapi.operation_id,
        exception_handlers=HANDLERS,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.recorder = RequestRecorder()
    for module in (
        health,
        deliveries,  # early: routes are matched in this order, and webhooks come by the hundred
        jobs,
        start,
        schedules,
        queues,
        workers,
        explain,
        versions,
        watches,
        webhooks,
        bulk,
        events,
        uploads,
        documents,
        batch,
        delete_many,
        collections,
        crawl_metrics,
        crawls,
        metrics,
        content,
        scrape,
        firecrawl_proxy,
        search,
        index,
        generations,
        keys,
        tenants,
        docs_page,
    ):
        app.include_router(module.router)
    for router in dashboard.ROUTERS:
        app.include_router(router)
    app.add_api_websocket_route("/{path:path}", _no_such_socket)
    return app


async def _no_such_socket(websocket: WebSocket) -> None:
    """Refuse unknown paths in our error shape; registered last."""
    raise NotFound(f"{websocket.url.path} is not a WebSocket")


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.hub, app.state.probe = EventHub(), health.HealthProbe()
    app.state.keyring, app.state.counter = Keyring(), Counter()
    app.state.hub.on_notice = app.state.keyring.hear
    app.state.hub.start()
    app.state.keyring.start()
    app.state.probe.start()
    app.state.recorder.start()
    restore = _on_stop(app.state.hub.hang_up_soon)
    try:
        yield
    finally:
        restore()
        await app.state.hub.close()
        await app.state.keyring.close()
        await app.state.counter.close()
        await app.state.probe.close()
        await app.state.recorder.close()
        await engine().close()
        await close_embedder()
        await close_changedetection()
        await close_firecrawl()
        await asyncio.to_thread(process_pool.stop_pool)
        await asyncio.to_thread(close_database)


def _on_stop(hang_up: Callable[[], None]) -> Callable[[], None]:
    """Also call `hang_up` at SIGTERM and SIGINT; returns a function that restores the handlers.

    Uvicorn stops the application after all connections are closed, and an open stream stays open until its client
    leaves.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:
        leave_when_overdue(get_settings().grace_s + MAX_STOP_S)
        hang_up()
        previous = before[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)

    def restore() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, handler)

    for number, handler in before.items():
        # Without a handler (a test, an embedding program) the signals are not ours to handle.
        if callable(handler) and handler is not signal.default_int_handler:
            signal.signal(number, stop)
    return restore


def _serve() -> FastAPI:
    """Return the application for a server. A wrong setting prints one sentence and exits with code 2."""
    try:
        settings = get_settings()
        settings.check_secrets()
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        hide_memory()
        logging.setup("api")
        telemetry.start("api")
        for name, ping in (("sql", database().ping), ("redis", redis.ping)):
            try:
                ping()
            except Unavailable as error:
                log.warning("not_reachable_yet", service=name, reason=error.message)
        shared_store.check_at_start()
        _exit_with_zero_on_term()
        return create_app()
    except ConfigError as error:
        sys.stderr.write(f"millrace api: {error.message}\n")
        raise SystemExit(2) from error


def _exit_with_zero_on_term() -> None:
    """Exit with 0 after SIGTERM, which uvicorn raises again once it has stopped."""
    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, frame: leave(0))


def __getattr__(name: str) -> Any:
    """Create `app` on first use, so that importing this module has no effect."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        globals()["app"] = application = _serve()
    except AttributeError as error:  # a bug; a server would report it as a missing app
        raise RuntimeError("the application cannot be created") from error
    return application
