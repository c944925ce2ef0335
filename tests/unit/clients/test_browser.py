"""Rendering in a real Chromium, which reaches no private address and leaves no process or file."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import pytest

from app.clients.browser import find_chromium, render
from app.clients.browser_proxy import GuardedProxy
from app.core import clock
from app.core.errors import Rejected, Unavailable
from tests.fakes.site import FakeSite, site
from tests.fakes.site import page as site_page
from tests.support.databases import SettingsEnv
from tests.support.services import missing
from tests.support.waiting import wait_until

__all__ = ["site"]

SCRIPT = """<html><body><p id=x></p><script>
fetch('/words').then(r => r.text()).then(t => setTimeout(() => document.getElementById('x').textContent = t, 300))
</script></body></html>"""


@pytest.fixture
def browser(settings_env: SettingsEnv) -> SettingsEnv:
    if find_chromium() is None:
        missing("chromium", "apt-get install chromium")
    settings_env(fetch_private="true", chromium_sandbox=str(os.getuid() != 0).lower(), fetch_javascript_timeout_s=30)
    return settings_env


def _processes_with(mark: str) -> list[str]:
    """Return the processes whose command line contains the text."""
    command_lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command_line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in command_line:
                command_lines.append(command_line.decode(errors="replace"))
    return command_lines


def test_page_is_rendered_with_its_scripts(browser: SettingsEnv, site: FakeSite) -> None:
    site.pages["/"] = site_page(SCRIPT.encode())
    site.pages["/words"] = site_page("Räder im Wasser".encode())
    assert '<p id="x">Räder im Wasser</p>' in asyncio.run(render(f"{site.url}/"))
    assert site.requests[0].headers["user-agent"] == "Millrace/0.1"
    assert _processes_with(site.url) == []


def test_page_cannot_reach_private_addresses(browser: SettingsEnv, site: FakeSite) -> None:
    """All requests of a page pass the proxy, which refuses private addresses."""
    browser(fetch_private="false", fetch_javascript_timeout_s=20)
    port = site.url.rpartition(":")[2]
    knocks: list[object] = []
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_count, args=(listener, knocks), daemon=True).start()
    raw = listener.getsockname()[1]
    page = f"""<html><body><img src="http://127.0.0.1:{port}/img"><iframe src="http://localhost:{port}/frame"></iframe>
<script src="http://2130706433:{port}/script"></script><link rel=preconnect href="http://127.0.0.1:{raw}/">
<link rel=stylesheet href="http://[::ffff:127.0.0.1]:{port}/style"><iframe src="file:///etc/hostname"></iframe>
<p id=x></p><script>
let ws = new WebSocket('ws://127.0.0.1:{raw}/');
fetch('http://localhost:{port}/fetch', {{mode: 'no-cors'}}).catch(() => 0);
fetch('https://127.0.0.1:{raw}/', {{mode: 'no-cors'}}).catch(() => 0);
navigator.sendBeacon('http://127.0.0.1:{port}/beacon');
let turn = {{urls: 'turn:127.0.0.1:{raw}?transport=tcp', username: 'u', credential: 'c'}};
let rtc = new RTCPeerConnection({{iceServers: [turn]}});
rtc.createDataChannel('x'); rtc.createOffer().then(o => rtc.setLocalDescription(o));
setTimeout(() => document.getElementById('x').textContent = 'done', 1500);
</script></body></html>"""
    html = asyncio.run(render(f"data:text/html,{quote(page)}"))
    assert ">done</p>" in html
    assert (site.visits, knocks) == ([], [])
    browser(fetch_private="true")
    asyncio.run(render(f"data:text/html,{quote(page)}"))
    assert site.visits and knocks, "where it may, it does"
    listener.close()


def _count(listener: socket.socket, knocks: list[object]) -> None:
    while True:
        try:
            connection, address = listener.accept()
        except OSError:
            return
        knocks.append(address)
        connection.close()


def test_page_that_never_settles_is_stopped(browser: SettingsEnv, site: FakeSite) -> None:
    browser(fetch_javascript_timeout_s=3)
    site.pages["/"] = site_page(b"<html><body><script>while (true) {}</script></body></html>")
    started = clock.monotonic()
    with pytest.raises(Unavailable):
        asyncio.run(render(f"{site.url}/"))
    assert clock.monotonic() - started < 10
    assert _processes_with(site.url) == []


def test_page_over_the_memory_limit_is_stopped(browser: SettingsEnv, site: FakeSite) -> None:
    browser(chromium_memory_mb=600)
    site.pages["/"] = site_page(
        b"<html><body><script>let a = []; for (;;) a.push(new Uint8Array(20000000).fill(7))</script></body></html>"
    )
    with pytest.raises(Rejected) as refused:
        asyncio.run(render(f"{site.url}/"))
    assert refused.value.code == "chromium_memory" and _processes_with(site.url) == []


def test_open_browsers_are_limited(browser: SettingsEnv, site: FakeSite) -> None:
    browser(chromium_count=1)
    site.pages["/"] = site_page(SCRIPT.encode())
    site.pages["/words"] = site_page(b"one after the other")

    async def both() -> list[str]:
        return await asyncio.gather(*(render(f"{site.url}/") for _ in range(2)))

    assert all("one after the other</p>" in html for html in asyncio.run(both()))
    paths = [path for path, _ in site.visits if path != "/favicon.ico"]
    assert paths == ["/", "/words", "/", "/words"]


def test_page_over_the_size_limit_is_stopped(browser: SettingsEnv, site: FakeSite) -> None:
    browser(fetch_max_bytes=100_000)
    site.pages["/"] = site_page(b"<html><body><script>document.body.append('x'.repeat(1000000))</script></body></html>")
    with pytest.raises(Rejected) as refused:
        asyncio.run(render(f"{site.url}/"))
    assert refused.value.code == "too_large" and _processes_with(site.url) == []


def test_cancelled_browser_ends_at_once(browser: SettingsEnv, site: FakeSite) -> None:
    site.pages["/"] = site_page(b"<html><body><script>while (true) {}</script></body></html>")

    async def cancelled() -> None:
        task = asyncio.ensure_future(render(f"{site.url}/"))
        while not site.visits:
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert _processes_with(site.url) == []


def test_browser_ends_with_its_worker(browser: SettingsEnv, site: FakeSite) -> None:
    """A killed worker leaves no browser."""
    site.pages["/"] = site_page(b"<html><body><script>while (true) {}</script></body></html>")
    code = "import asyncio, sys\nfrom app.clients.browser import render\nasyncio.run(render(sys.argv[1]))"
    worker = subprocess.Popen([sys.executable, "-c", code, f"{site.url}/?mark"], cwd=Path(__file__).parents[3])
    wait_until(lambda: len(site.visits) > 0, timeout_s=30, what="the page was asked for")
    worker.kill()
    worker.wait()
    wait_until(lambda: _processes_with(f"{site.url}/?mark") == [], timeout_s=10, what="all of Chromium has ended")


def test_missing_chromium_is_reported(settings_env: SettingsEnv) -> None:
    settings_env(chromium_path="/nowhere/chromium")
    with pytest.raises(Unavailable) as none:
        asyncio.run(render("http://127.0.0.1/"))
    assert none.value.code == "no_chromium"
    settings_env(chromium_path="/bin/false")
    with pytest.raises(Unavailable) as failed:
        asyncio.run(render("http://127.0.0.1/"))
    assert failed.value.code == "chromium_failed"


@pytest.mark.parametrize(
    ("raw_request", "answer"),
    [
        ("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n", b"403"),
        ("CONNECT 2130706433:{port} HTTP/1.1\r\n\r\n", b"403"),
        ("CONNECT [::ffff:127.0.0.1]:{port} HTTP/1.1\r\n\r\n", b"403"),
        ("GET http://localhost:{port}/ HTTP/1.1\r\nHost: public.example\r\n\r\n", b"403"),
        ("GET http://inside.example/ HTTP/1.1\r\n\r\n", b"403"),
        ("CONNECT home.example:443 HTTP/1.1\r\n\r\n", b"403"),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n", b"400"),
        ("GET ftp://127.0.0.1/ HTTP/1.1\r\n\r\n", b"400"),
        ("CONNECT nonsense HTTP/1.1\r\n\r\n", b"400"),
        ("\r\n\r\n", b"400"),
    ],
)
def test_proxy_refuses_private_addresses_and_bad_requests(
    settings_env: SettingsEnv, site: FakeSite, raw_request: str, answer: bytes
) -> None:
    assert _through(raw_request.format(port=site.url.rpartition(":")[2])).split(b" ")[1] == answer
    assert site.visits == []


def test_proxy_forwards_requests(settings_env: SettingsEnv, site: FakeSite) -> None:
    """One request a connection, in origin form, within the byte limit."""
    settings_env(fetch_private="true")
    site.pages["/a?b"] = site_page(b"x" * 5_000)
    port = site.url.rpartition(":")[2]
    request = (
        f"GET http://inside.example:{port}/a?b HTTP/1.1\r\nHost: inside.example\r\nProxy-Connection: keep-alive\r\n\r\n"
    )
    assert _through(request).endswith(b"x" * 5_000)
    assert site.requests[-1].headers == {"host": "inside.example", "connection": "close"}
    assert len(_through(request, max_bytes=1_000)) < 5_000


def _through(request: str, max_bytes: int = 100_000) -> bytes:
    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async def ask() -> bytes:
        proxy = GuardedProxy(max_bytes=max_bytes, blocked_hosts={"home.example"}, resolver=resolver)
        async with proxy, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(request.encode())
            response = await reader.read(-1)
            writer.close()
            await writer.wait_closed()
            return response

    return asyncio.run(ask())
