"""Chromium, once for one page: its mark-up after its scripts have run, everything fetched by way of our proxy."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from weakref import WeakKeyDictionary

from app.clients import browser_keeper
from app.clients.browser_proxy import GuardedProxy
from app.core.errors import Rejected, Unavailable
from app.core.logging import get_logger
from app.core.settings import Settings, get_settings
from app.core.waiting import settled

NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
# Of the time a page may take: what its scripts may wait for, by a clock that runs ahead while nothing is loading.
SCRIPTS_MS = 10_000
GRACE_S = 3.0
# Where Chromium itself calls home, also when it is told not to.
BACKGROUND_HOSTS = frozenset({
    "accounts.google.com", "android.clients.google.com", "clients1.google.com", "clients2.google.com",
    "clients2.googleusercontent.com", "clients4.google.com", "clientservices.googleapis.com",
    "content-autofill.googleapis.com", "edgedl.me.gvt1.com", "mtalk.google.com",
    "optimizationguide-pa.googleapis.com", "redirector.gvt1.com", "safebrowsing.googleapis.com",
    "safebrowsingohttpgateway.googleapis.com", "update.googleapis.com",
})  # fmt: skip
_MAX_STDERR_BYTES = 2_000
_CHUNK = 64 * 1024

log = get_logger(__name__)

# Who may open one now; a semaphore belongs to the loop it is waited on in.
_places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def chromium() -> str | None:
    """The program's path; None where there is none here."""
    said = get_settings().chromium_path
    return shutil.which(said) if said else next(filter(None, map(shutil.which, NAMES)), None)


async def render(url: str) -> str:
    """The page's HTML when its scripts have come to rest.

    Raises Unavailable where there is no Chromium, it fails or takes too long, Rejected for a page beyond the limits of
    size and memory. Whatever happens, nothing of it runs any more afterwards.
    """
    program, settings = chromium(), get_settings()
    if program is None:
        raise Unavailable("there is no Chromium on this machine", code="no_chromium")
    place = _places.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(settings.chromium_count))
    async with place, GuardedProxy(max_bytes=8 * settings.fetch_max_bytes, blocked_hosts=BACKGROUND_HOSTS) as proxy:
        command = _command(program, proxy.port, url, settings)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ},
            start_new_session=True,
        )
        try:
            most = settings.fetch_max_bytes
            html, complaint = await asyncio.gather(_all_of(process.stdout, most, url), _end_of(process.stderr))
            code = await process.wait()
        finally:
            await _stop(process)
    if code == browser_keeper.OUT_OF_MEMORY:
        raise Rejected(f"{url} took more than {settings.chromium_memory_mb} MiB in Chromium", code="chromium_memory")
    if code == browser_keeper.OUT_OF_TIME:
        raise Unavailable(f"{url} took longer than {settings.fetch_javascript_timeout_s:g} s in Chromium")
    if code != 0 or not html.strip():
        log.warning("chromium_failed", url=url, exit_code=code, said=complaint[-_MAX_STDERR_BYTES:])
        raise Unavailable(f"Chromium ended with {code} on {url}", code="chromium_failed")
    return html


def _command(program: str, port: int, url: str, settings: Settings) -> list[str]:
    keeper = [sys.executable, "-I", "-S", str(Path(browser_keeper.__file__))]
    limits = [str(settings.fetch_javascript_timeout_s), str(settings.chromium_memory_mb)]
    sandbox = [] if settings.chromium_sandbox else ["--no-sandbox"]
    return [
        *keeper, *limits, program, *sandbox,
        "--headless", "--dump-dom", f"--virtual-time-budget={SCRIPTS_MS}",
        f"--user-agent={settings.fetch_user_agent}",
        # What a page stores stays in memory, where it counts.
        "--incognito", "--user-data-dir={folder}", "--disk-cache-size=1", "--disable-gpu",
        "--disable-dev-shm-usage", "--mute-audio",
        # All that it asks for goes by way of the proxy, also what is on this machine, and no name is looked up here.
        f"--proxy-server=http://127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--dns-prefetch-disable", "--disable-quic",
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
        "--webrtc-ip-handling-policy=disable_non_proxied_udp",
        # It calls nobody by itself, and asks nobody anything.
        "--no-first-run", "--no-default-browser-check", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--disable-default-apps", "--disable-extensions", "--disable-domain-reliability",
        "--disable-component-extensions-with-background-pages", "--disable-field-trial-config",
        "--metrics-recording-only",
        "--disable-features=OptimizationHints,MediaRouter,Translate,AutofillServerCommunication",
        "--disable-breakpad", "--disable-crash-reporter", "--disable-client-side-phishing-detection", "--no-pings",
        "--deny-permission-prompts", "--block-new-web-contents", "--password-store=basic",
        "--blink-settings=imagesEnabled=false", "--js-flags=--max-old-space-size=512",
        "--", url,
    ]  # fmt: skip


async def _all_of(stream: asyncio.StreamReader | None, most: int, url: str) -> str:
    assert stream is not None
    parts, size = [], 0
    while part := await stream.read(_CHUNK):
        size += len(part)
        if size > most:
            raise Rejected(f"{url} is larger than {most:,} bytes in Chromium", code="too_large")
        parts.append(part)
    return b"".join(parts).decode("utf-8", "replace")


async def _end_of(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    kept = b""
    while part := await stream.read(_CHUNK):
        kept = (kept + part)[-_MAX_STDERR_BYTES:]
    return kept.decode("utf-8", "replace")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Let go of the leash, and wait until the keeper has seen to the end of all."""
    if process.stdin is not None:
        process.stdin.close()
    ended = asyncio.ensure_future(_ended(process))
    await settled(asyncio.ensure_future(asyncio.wait({ended}, timeout=GRACE_S)))
    if not ended.done():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await settled(ended)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Its pipes are read to the end: one with something left in it would stay open."""
    for stream in (process.stdout, process.stderr):
        while stream is not None and await stream.read(_CHUNK):
            pass
    await process.wait()
