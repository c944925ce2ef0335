"""Checks of `millrace doctor`: this machine, its settings and the services they name; each fault has a fix."""

from __future__ import annotations

import asyncio
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import app.metrics.models
import app.sources.models
import app.tenants.models  # noqa: F401  all tables, so that a missing one is found
from app.cli import exit_codes
from app.cli.client.http import ApiClient
from app.cli.exit_codes import CliExit
from app.cli.local import store_probe
from app.clients.changedetection import changedetection, close_changedetection, is_set_up
from app.clients.changedetection_answers import InstanceInfo
from app.core import redis, schema
from app.core.blobs import blob_url, blobs
from app.core.db import close_database, database
from app.core.errors import AppError, ConfigError
from app.core.logging import mask
from app.core.schema import current, head
from app.core.settings import Settings, get_settings
from app.documents.files import shared_store
from app.jobs.ledger import worker_host, workers
from app.jobs.sandbox.box import readable_paths
from app.jobs.sandbox.layers import find_layers_alone
from app.search.embedders import Embedder, embedder
from app.search.engine import engine
from app.search.engines.base import Lag
from app.search.index.generations import active

MIN_PYTHON = (3, 11)
MIN_REDIS = (6, 2)
MIN_DISK_BYTES = 1024**3
MAX_LAG_S = 60.0
API_TIMEOUT_S = 5.0
SHARE_STORE = "give api and workers one folder or bucket: MILLRACE_BLOB_URL"
SCHEMA_FAULT = "database_schema"
NO_DATABASE = ("no database yet", "run millrace up or millrace migrate")


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check, with a fix unless it passed."""

    check: str
    state: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""


def run_checks() -> Iterator[Finding]:
    """Run all checks, each even if an earlier one failed."""
    yield _check_python()
    try:
        here = get_settings()
    except ConfigError as error:
        yield Finding("settings", "fail", error.message, "run millrace config show: it explains each setting")
        return
    yield _check_secrets(here)
    yield _check_disk(here)
    yield _guard("sandbox", "MILLRACE_SANDBOX_MEMORY_MB", lambda: _check_sandbox(here))
    yield _guard("sql", "MILLRACE_DATABASE_URL", _check_sql)
    yield _guard("redis", "MILLRACE_REDIS_URL", _check_redis)
    yield _guard("originals", "MILLRACE_BLOB_URL", _check_originals)
    api = _check_api()
    yield api
    workers = _guard("workers", "MILLRACE_DATABASE_URL", lambda: _check_workers(is_api_up=api.state == "ok"))
    yield workers
    if workers.state == "ok":
        yield _guard("uploads", "MILLRACE_BLOB_URL", _check_uploads)
    yield _guard("embedder", "MILLRACE_EMBEDDER", _check_embedder)
    yield _guard("search", "MILLRACE_QDRANT_URL", _check_search)
    yield _guard("watching", "MILLRACE_CHANGEDETECTION_URL", _check_watching)
    close_database()


def _guard(name: str, setting: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except AppError as error:
        is_schema = error.code == SCHEMA_FAULT and name != "sql"
        return Finding(name, "fail", error.message, "see sql above" if is_schema else f"check the address in {setting}")


def _check_python() -> Finding:
    summary = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < MIN_PYTHON:
        return Finding("python", "fail", summary, "install Python 3.11 or newer, then run make setup")
    return Finding("python", "ok", summary)


def _check_secrets(here: Settings) -> Finding:
    try:
        here.check_secrets()
    except ConfigError as error:
        return Finding(
            "settings", "fail", error.message, "run millrace up to create a secret, or set MILLRACE_API_SECRET"
        )
    return Finding("settings", "ok", f"data in {here.data_dir.resolve()}")


def _check_disk(here: Settings) -> Finding:
    folder = here.data_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    summary = f"{free / 1024**3:.1f} GiB free at {folder}"
    if free < MIN_DISK_BYTES:
        return Finding("disk", "warn", summary, "free disk space, or move MILLRACE_DATA_DIR")
    return Finding("disk", "ok", summary)


def _check_sandbox(here: Settings) -> Finding:
    """Try to get out of a closed sandbox; a layer that the kernel or the container lacks is a warning."""
    layers = find_layers_alone()
    held = ", ".join(layer.name for layer in layers if layer.holds)
    lacking = "; ".join(f"{layer.name}: {layer.lack}" for layer in layers if not layer.holds)
    summary = f"closed: {held or 'nothing'}" + (f"; open: {lacking}" if lacking else "")
    data = here.data_dir.resolve()
    if any(data.is_relative_to(path) for path in readable_paths()):
        return Finding("sandbox", "warn", f"{summary}; it can read {data}", "move MILLRACE_DATA_DIR elsewhere")
    if any(layer.is_needed and not layer.holds for layer in layers):
        return Finding("sandbox", "warn", summary, "use a kernel with Landlock (5.13 or newer) and seccomp")
    return Finding("sandbox", "ok", summary)


def _has_database() -> bool:
    """Return False before the first start, when the SQLite file does not exist; that is not a fault."""
    here = get_settings()
    return bool(here.database_url) or (here.data_dir / "millrace.db").exists()


def _check_sql() -> Finding:
    if not _has_database():
        return Finding("sql", "warn", *NO_DATABASE)
    here = database()
    here.ping()
    version, newest = current(here), head()
    if version != newest:
        summary = f"{here.dialect}, schema {version or 'empty'}, not {newest}"
        return Finding("sql", "fail", summary, "run millrace migrate")
    fault = here.read(schema.fault)
    if fault is not None:
        return Finding("sql", "fail", f"{here.dialect}: {fault}", "docs/troubleshooting.md: the schema is incomplete")
    return Finding("sql", "ok", f"{here.dialect}, schema {version}")


def _check_redis() -> Finding:
    facts: dict[str, Any] = redis.push().call(lambda client: client.info())
    version = str(facts.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_REDIS:
        return Finding("redis", "fail", version, "install Redis 6.2 or newer, or Valkey")
    policy = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory") and policy != "noeviction":
        return Finding("redis", "warn", f"{version}, policy {policy}", "run CONFIG SET maxmemory-policy noeviction")
    return Finding("redis", "ok", f"{version}, {facts.get('used_memory_human', '?')} in use")


def _check_originals() -> Finding:
    asyncio.run(blobs().ping())
    location = mask(blob_url())
    if _has_database() and current(database()) == head() and not shared_store.is_shared(database(), blobs()):
        summary = f"{location} is not the store that the other processes use"
        return Finding("originals", "fail", summary, f"{SHARE_STORE}; after a loss: millrace config accept-store")
    return Finding("originals", "ok", location)


def _check_uploads() -> Finding:
    """Let a worker read what this process writes."""
    job = store_probe.probe()
    if job.state == "succeeded":
        return Finding("uploads", "ok", "a worker has read a file that was written here")
    if job.state == "failed" and job.error_code == "blob_not_found":
        return Finding("uploads", "fail", "a worker could not read a file that was written here", SHARE_STORE)
    if job.state == "failed":
        fix = f"millrace jobs show {job.id}"
        return Finding("uploads", "fail", f"a worker could not read a file: {job.error_message}", fix)
    summary = f"no worker ran the probe within {store_probe.MAX_WAIT_S:g} s"
    return Finding("uploads", "warn", summary, f"run millrace jobs explain {job.id}, then millrace doctor again")


def _check_search() -> Finding:
    """Ask the engine for its lag; the embedded engine lives in each api process and has none to ask."""
    here = get_settings()
    if here.search_engine == "embedded":
        return Finding("search", "ok", "embedded: each api process holds one copy of the index in memory")
    if not _has_database():
        return Finding("search", "warn", *NO_DATABASE)
    lag = asyncio.run(_read_lag())
    summary = f"{here.search_engine} at {here.qdrant_url}, {lag.changes} changes behind"
    if lag.seconds > MAX_LAG_S:
        return Finding(
            "search",
            "warn",
            f"{summary} for {lag.seconds:.0f} s",
            "check that a worker is alive: millrace workers list",
        )
    return Finding("search", "ok", summary)


async def _read_lag() -> Lag:
    search = engine()
    try:
        return await search.lag(await active())
    finally:
        await search.close()


def _check_watching() -> Finding:
    if not is_set_up():
        return Finding("watching", "ok", "changedetection.io is not configured; no page is watched")
    instance = asyncio.run(_ping_changedetection())
    url = mask(get_settings().changedetection_url)
    summary = f"changedetection.io {instance.version} at {url}, {instance.watch_count} watches"
    return Finding("watching", "ok", summary)


async def _ping_changedetection() -> InstanceInfo:
    try:
        return await changedetection().ping()
    finally:
        await close_changedetection()


def _check_api() -> Finding:
    try:
        with ApiClient(API_TIMEOUT_S) as api:
            api.get("/readyz")
            api.get("/api/jobs", limit=1)
            return Finding("api", "ok", api.url)
    except CliExit as error:
        if error.code == exit_codes.UNREACHABLE:
            return Finding("api", "warn", error.message, "run make run")
        return Finding("api", "fail", error.message, "read the log of the api")


def _check_workers(*, is_api_up: bool) -> Finding:
    rows = database().read(workers.list_alive) if _has_database() else []
    alive = [row for row in rows if not worker_host.has_exited(row.host, row.pid, row.pid_birth)]
    if alive:
        queues = sorted({queue for row in alive for queue in row.queues})
        return Finding("workers", "ok", f"{len(alive)} on {', '.join(queues)}")
    state: Literal["warn", "fail"] = "fail" if is_api_up else "warn"
    return Finding("workers", state, "no worker is alive: accepted jobs wait", "run millrace worker")


def _check_embedder() -> Finding:
    model = embedder()
    asyncio.run(_ping_embedder(model))
    return Finding("embedder", "ok", model.name)


async def _ping_embedder(model: Embedder) -> None:
    try:
        await model.ping()
    finally:
        await model.close()
