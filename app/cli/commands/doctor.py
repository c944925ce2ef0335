"""`millrace doctor`: what stands between this machine and a working system, each fault with its mending."""

from __future__ import annotations

import asyncio
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from app.cli import exit_codes, output
from app.cli.client.http import Server
from app.cli.exit_codes import Quit
from app.clients.changedetection import changedetection, close_changedetection, is_set_up
from app.clients.changedetection_answers import InstanceInfo
from app.core import redis
from app.core.blobs import blobs
from app.core.db import close_database, database
from app.core.errors import AppError, ConfigError
from app.core.logging import mask
from app.core.schema import current, head
from app.core.settings import Settings, get_settings
from app.jobs.ledger import worker_host, workers
from app.search.embedders import Embedder, embedder
from app.search.engine import engine
from app.search.engines.base import Lag
from app.search.index.generations import active

OLDEST_PYTHON = (3, 11)
OLDEST_REDIS = (6, 2)
LITTLE_DISK_BYTES = 1024**3
LONG_BEHIND_S = 60.0
STYLE = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it."""

    check: str
    state: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""


def run(*, as_json: bool) -> int:
    """All checks, each even if an earlier one failed; FAILED if one did."""
    findings: list[Finding] = []
    for finding in _examine():
        findings.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        output.emit([asdict(finding) for finding in findings])
    return exit_codes.FAILED if any(finding.state == "fail" for finding in findings) else exit_codes.OK


def _show(finding: Finding) -> None:
    style = STYLE[finding.state]
    output.out.print(f"[{style}]{finding.state:<5}[/]{finding.check:<10} {output.text(finding.found)}")
    if finding.fix:
        output.out.print(f"                [dim]{output.text(finding.fix)}[/]")


def _examine() -> Iterator[Finding]:
    yield _python()
    try:
        here = get_settings()
    except ConfigError as error:
        yield Finding("settings", "fail", error.message, "millrace config show lists what each one means")
        return
    yield _secrets(here)
    yield _disk(here)
    yield _guarded("sql", "MILLRACE_DATABASE_URL", _sql)
    yield _guarded("redis", "MILLRACE_REDIS_URL", _redis)
    yield _guarded("originals", "MILLRACE_BLOB_URL", _originals)
    serves = _api()
    yield serves
    yield _guarded("workers", "MILLRACE_DATABASE_URL", lambda: _workers(serves.state == "ok"))
    yield _guarded("embedder", "MILLRACE_EMBEDDER", _embedder)
    yield _guarded("search", "MILLRACE_QDRANT_URL", _search)
    yield _guarded("watching", "MILLRACE_CHANGEDETECTION_URL", _watching)
    close_database()


def _guarded(check: str, setting: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except AppError as error:
        return Finding(check, "fail", error.message, f"{setting} says where it is")


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "fail", found, "install Python 3.11 or newer and run make setup")
    return Finding("python", "ok", found)


def _secrets(here: Settings) -> Finding:
    try:
        here.check_secrets()
    except ConfigError as error:
        return Finding("settings", "fail", error.message, "millrace up makes a secret, or set MILLRACE_API_SECRET")
    return Finding("settings", "ok", f"data in {here.data_dir.resolve()}")


def _disk(here: Settings) -> Finding:
    folder = here.data_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / 1024**3:.1f} GiB free at {folder}"
    if free < LITTLE_DISK_BYTES:
        return Finding("disk", "warn", found, "make room, or move MILLRACE_DATA_DIR")
    return Finding("disk", "ok", found)


def _has_database() -> bool:
    """A SQLite file that was never made is a first start, no fault."""
    here = get_settings()
    return bool(here.database_url) or (here.data_dir / "millrace.db").exists()


def _sql() -> Finding:
    if not _has_database():
        return Finding("sql", "warn", "no database yet", "millrace up or millrace migrate makes it")
    opened = database()
    opened.ping()
    at, newest = current(opened), head()
    if at != newest:
        return Finding("sql", "fail", f"{opened.dialect}, schema {at or 'empty'}, not {newest}", "millrace migrate")
    return Finding("sql", "ok", f"{opened.dialect}, schema {at}")


def _redis() -> Finding:
    facts: dict[str, Any] = redis.push().call(lambda client: client.info())
    version = str(facts.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        return Finding("redis", "fail", version, "Redis 6.2 or newer, or Valkey, is needed")
    policy = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory") and policy != "noeviction":
        return Finding("redis", "warn", f"{version}, policy {policy}", "CONFIG SET maxmemory-policy noeviction")
    return Finding("redis", "ok", f"{version}, {facts.get('used_memory_human', '?')} in use")


def _originals() -> Finding:
    asyncio.run(blobs().ping())
    shared = get_settings().blob_url.startswith("s3:")
    where = get_settings().blob_url if shared else "in a folder: api and workers must share it"
    return Finding("originals", "ok", where)


def _search() -> Finding:
    """The embedded engine is each process's own; another one is asked."""
    here = get_settings()
    if here.search_engine == "embedded":
        return Finding("search", "ok", "embedded: each api process holds one copy of the index in memory")
    if not _has_database():
        return Finding("search", "warn", "no database yet", "millrace up or millrace migrate makes it")
    lag = asyncio.run(_lag())
    found = f"{here.search_engine} at {here.qdrant_url}, {lag.changes} changes behind"
    if lag.seconds > LONG_BEHIND_S:
        return Finding("search", "warn", f"{found} for {lag.seconds:.0f} s", "is a worker alive? millrace jobs list")
    return Finding("search", "ok", found)


async def _lag() -> Lag:
    opened = engine()
    try:
        return await opened.lag(await active())
    finally:
        await opened.close()


def _watching() -> Finding:
    if not is_set_up():
        return Finding("watching", "ok", "no changedetection.io is set up, and no page watched")
    found = asyncio.run(_instance())
    where = mask(get_settings().changedetection_url)
    return Finding("watching", "ok", f"changedetection.io {found.version} at {where}, {found.watch_count} watches")


async def _instance() -> InstanceInfo:
    try:
        return await changedetection().ping()
    finally:
        await close_changedetection()


def _api() -> Finding:
    try:
        with Server(timeout_s=5.0) as server:
            server.get("/readyz")
            server.get("/api/jobs", limit=1)
            return Finding("api", "ok", server.url)
    except Quit as error:
        if error.code == exit_codes.UNREACHABLE:
            return Finding("api", "warn", error.message, "make run starts everything")
        return Finding("api", "fail", error.message, "its log tells more")


def _workers(api_serves: bool) -> Finding:
    known = database().read(workers.list_alive) if _has_database() else []
    living = [worker for worker in known if not worker_host.has_exited(worker.host, worker.pid, worker.pid_birth)]
    if living:
        queues = sorted({queue for worker in living for queue in worker.queues})
        return Finding("workers", "ok", f"{len(living)} on {', '.join(queues)}")
    state: Literal["warn", "fail"] = "fail" if api_serves else "warn"
    return Finding("workers", state, "none is alive: jobs are accepted and wait", "millrace worker")


def _embedder() -> Finding:
    model = embedder()
    asyncio.run(_asked(model))
    return Finding("embedder", "ok", model.name)


async def _asked(model: Embedder) -> None:
    try:
        await model.ping()
    finally:
        await model.close()
