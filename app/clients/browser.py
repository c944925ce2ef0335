"""Render one page in Chromium: return its HTML after its scripts ran; all requests pass through our proxy."""

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

PROGRAMS = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
# Virtual time that the page's scripts may wait for; it runs ahead of the clock while nothing is loading.
VIRTUAL_TIME_MS = 10_000
STOP_GRACE_S = 3.0
# Hosts that Chromium contacts for itself, even with the flags that disable it.
BACKGROUND_HOSTS = frozenset({
    "accounts.google.com", "android.clients.google.com", "clients1.google.com", "clients2.google.com",
    "clients2.googleusercontent.com", "clients4.google.com", "clientservices.googleapis.com",
    "content-autofill.googleapis.com", "edgedl.me.gvt1.com", "mtalk.google.com",
    "optimizationguide-pa.googleapis.com", "redirector.gvt1.com", "safebrowsing.googleapis.com",
    "safebrowsingohttpgateway.googleapis.com", "update.googleapis.com",
})  # fmt: skip
# Begins the page that Chromium makes itself when it cannot reach a server.
_ERROR_PAGE = '<div id="main-frame-error"'
_MAX_STDERR_BYTES = 2_000
_CHUNK_BYTES = 64 * 1024

log = get_logger(__name__)

# Limits the browsers at one time; a semaphore belongs to the event loop that waits on it.
_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def find_chromium() -> str | None:
    """Return the path of the Chromium program, or None if none is installed."""
    configured = get_settings().chromium_path
    return shutil.which(configured) if configured else next(filter(None, map(shutil.which, PROGRAMS)), None)


async def render(url: str) -> str:
    """Return the page's HTML once its scripts are idle.

    Raises Unavailable if Chromium is missing, fails or takes too long, and Rejected if the page exceeds the limits of
    size or memory. No process is left running in any case.
    """
    program, settings = find_chromium(), get_settings()
    if program is None:
        raise Unavailable("there is no Chromium on this machine", code="no_chromium")
    slot = _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(settings.chromium_count))
    async with slot, GuardedProxy(max_bytes=8 * settings.fetch_max_bytes, blocked_hosts=BACKGROUND_HOSTS) as proxy:
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
            max_bytes = settings.fetch_max_bytes
            html, stderr = await asyncio.gather(_read_all(process.stdout, max_bytes, url), _read_tail(process.stderr))
            code = await process.wait()
        finally:
            await _stop(process)
    if code == browser_keeper.OUT_OF_MEMORY:
        raise Rejected(f"{url} took more than {settings.chromium_memory_mb} MiB in Chromium", code="chromium_memory")
    if code == browser_keeper.OUT_OF_TIME:
        raise Unavailable(f"{url} took longer than {settings.fetch_javascript_timeout_s:g} s in Chromium")
    if code != 0 or not html.strip() or _ERROR_PAGE in html:
        log.warning("chromium_failed", url=url, exit_code=code, stderr=stderr[-_MAX_STDERR_BYTES:])
        raise Unavailable(f"Chromium ended with {code} on {url}", code="chromium_failed")
    return html


def _command(program: str, port: int, url: str, settings: Settings) -> list[str]:
    keeper = [sys.executable, "-I", "-S", str(Path(browser_keeper.__file__))]
    limits = [str(settings.fetch_javascript_timeout_s), str(settings.chromium_memory_mb)]
    sandbox = [] if settings.chromium_sandbox else ["--no-sandbox"]
    return [
        *keeper, *limits, program, *sandbox,
        "--headless", "--dump-dom", f"--virtual-time-budget={VIRTUAL_TIME_MS}",
        f"--user-agent={settings.fetch_user_agent}",
        # Page storage stays in memory, where it counts towards the limit.
        "--incognito", "--user-data-dir={folder}", "--disk-cache-size=1", "--disable-gpu",
        "--disable-dev-shm-usage", "--mute-audio",
        # All requests pass the proxy, loopback ones too, and the browser resolves no names.
        f"--proxy-server=http://127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--dns-prefetch-disable", "--disable-quic",
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
        "--webrtc-ip-handling-policy=disable_non_proxied_udp",
        # No requests for the browser's own purposes, and no prompts.
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


async def _read_all(stream: asyncio.StreamReader | None, max_bytes: int, url: str) -> str:
    assert stream is not None
    parts, size = [], 0
    while part := await stream.read(_CHUNK_BYTES):
        size += len(part)
        if size > max_bytes:
            raise Rejected(f"{url} is larger than {max_bytes:,} bytes in Chromium", code="too_large")
        parts.append(part)
    return b"".join(parts).decode("utf-8", "replace")


async def _read_tail(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    tail = b""
    while part := await stream.read(_CHUNK_BYTES):
        tail = (tail + part)[-_MAX_STDERR_BYTES:]
    return tail.decode("utf-8", "replace")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Close the keeper's standard input and wait until it has ended every process."""
    if process.stdin is not None:
        process.stdin.close()
    ended = asyncio.ensure_future(_wait_for_end(process))
    await settled(asyncio.ensure_future(asyncio.wait({ended}, timeout=STOP_GRACE_S)))
    if not ended.done():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await settled(ended)


async def _wait_for_end(process: asyncio.subprocess.Process) -> None:
    """Wait for the process; read its pipes to the end first, since unread data would keep them open."""
    for stream in (process.stdout, process.stderr):
        while stream is not None and await stream.read(_CHUNK_BYTES):
            pass
    await process.wait()
