"""Invalid responses of changedetection.io, and the notification settings of a watch."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.clients.changedetection import MAX_RESPONSE_BYTES, ChangeDetection, WatchRequest, changedetection, is_set_up
from app.clients.changedetection import close_changedetection as close
from app.clients.changedetection_answers import RequestRefused
from app.clients.changedetection_template import BODY, notification, notification_url
from app.core.errors import AppError, ConfigError, InvalidInput, LimitReached, NotFound, Rejected, Unavailable
from app.core.settings import overridden
from tests.fakes.server import FakeServer, Response
from tests.support.stack import REPOSITORY

pytestmark = pytest.mark.anyio
UUID = "9f0d40e2-48b3-429e-ac12-706728affa97"
JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain; charset=utf-8"}
Call = Callable[[ChangeDetection], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "ping": lambda client: client.ping(),
    "find": lambda client: client.find("http://a.example/"),
    "watches": lambda client: client.watches(),
    "watch": lambda client: client.watch(UUID),
    "create": lambda client: client.create(WatchRequest("http://a.example/")),
    "update": lambda client: client.update(UUID, paused=True),
    "recheck": lambda client: client.recheck(UUID),
    "delete": lambda client: client.delete(UUID),
    "history": lambda client: client.history(UUID),
    "snapshot": lambda client: client.snapshot(UUID),
    "difference": lambda client: client.difference(UUID),
    "tag": lambda client: client.tag("Shop"),
}


class ScriptedServer:
    """A fake server with one response, and a client of it."""

    def __init__(self, server: FakeServer, client: ChangeDetection) -> None:
        self.server, self.client = server, client

    async def ask(self, response: Response, call: str) -> Any:
        self.server.answer = lambda request: response
        return await CALLS[call](self.client)

    async def refused(self, response: Response, call: str) -> AppError:
        with pytest.raises(AppError) as caught:
            await self.ask(response, call)
        assert "hush-hush" not in caught.value.message
        return caught.value


@asynccontextmanager
async def scripted_server(**settings: object) -> AsyncIterator[ScriptedServer]:
    with FakeServer(lambda request: Response()).running() as server:
        key = {"changedetection_api_key": "hush-hush"}
        with overridden(changedetection_url=server.url, **key, **settings):
            try:
                yield ScriptedServer(server, changedetection())
            finally:
                await close()


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as made:
        yield made


def watch(**fields: Any) -> bytes:
    return json.dumps({"uuid": UUID, "url": "http://a.example/", **fields}).encode()


PAGE = b"<html>Please log in</html>"


@pytest.mark.parametrize("call", CALLS)
async def test_malformed_success_is_an_invalid_response(scripted: ScriptedServer, call: str) -> None:
    lies = (PAGE, b"[]", b"[" * 200_000, b"\xff\xfe", b'"NO"', b'{"uuid": "../x"}', b'{"a": 1}', b"NaN")
    for body in lies:
        error = await scripted.refused(Response(body), call)
        assert isinstance(error, Rejected) and error.code == "changedetection_answer", body[:50]


@pytest.mark.parametrize(
    ("response", "error", "code"),
    [
        (Response(b'"Invalid access - API key invalid."', 403), Rejected, "changedetection_key"),
        (Response(b"", 401), Rejected, "changedetection_key"),
        (Response(b'"Invalid or unsupported URL"', 422), RequestRefused, "changedetection_rejected"),
        (Response(b'"Watch limit reached"', 429), Rejected, "changedetection_limit"),
        (Response(b"slowly", 429, {"retry-after": "7"}), LimitReached, "changedetection_busy"),
        (Response(b'{"message": "Internal Server Error"}', 500), Unavailable, "changedetection_unavailable"),
        (Response(b"<html>bad gateway</html>", 502), Unavailable, "changedetection_unavailable"),
        (Response(b"<html>not here</html>", 404), Rejected, "changedetection_answer"),
        (Response(b"", 302, {"location": "http://127.0.0.1:1/"}), Rejected, "changedetection_answer"),
        (Response(b"x", 200, {"content-encoding": "gzip"}), Rejected, "changedetection_answer"),
        (Response(b"{}", 200, {"content-length": "500"}), Unavailable, "changedetection_unavailable"),
    ],
    ids=lambda case: f"{case.status}-{len(case.headers)}" if isinstance(case, Response) else "",
)
async def test_a_refusal(scripted: ScriptedServer, response: Response, error: type[AppError], code: str) -> None:
    for call in CALLS:
        caught = await scripted.refused(response, call)
        assert (type(caught), caught.code) == (error, code), call
        assert not isinstance(caught, LimitReached) or caught.retry_after_s == 7


async def test_error_text_is_passed_on(scripted: ScriptedServer) -> None:
    for body in (b'{"message": "No interval"}', b'"No interval"'):
        assert (
            await scripted.refused(Response(body, 400), "create")
        ).message == "changedetection.io answers 400: No interval"
    error = await scripted.refused(Response(b'{"message": "No watch exists"}', 404), "watch")
    assert isinstance(error, NotFound) and error.code == "changedetection_missing"
    error = await scripted.refused(Response(b"", 503, {"retry-after": "9" * 30}), "ping")
    assert isinstance(error, Unavailable) and error.retry_after_s == 3600


async def test_endless_answer_is_cut_off(scripted: ScriptedServer) -> None:
    large = Response(b" " * 2**20, headers=TEXT, repeat=MAX_RESPONSE_BYTES // 2**20 + 8)
    for call in ("ping", "snapshot"):
        assert (await scripted.refused(large, call)).code == "changedetection_answer"


async def test_slow_answer_times_out() -> None:
    """Each byte arrives within the timeout, the whole body does not."""
    async with scripted_server(changedetection_timeout_s=0.4) as scripted:
        error = await scripted.refused(Response(b" ", headers=JSON, repeat=20, pause_s=0.1), "ping")
    assert isinstance(error, Unavailable) and "within 0.4 s" in error.message


@pytest.mark.parametrize(
    "body",
    [
        watch(url=None, title=3),
        watch(last_changed=-1),
        watch(last_checked=10**30),
        watch(tags=["Shop"]),
        b'{"url": "http://a.example/"}',
    ],
)
async def test_malformed_watch_is_an_invalid_response(scripted: ScriptedServer, body: bytes) -> None:
    assert (await scripted.refused(Response(body), "watch")).code == "changedetection_answer"


async def test_texts_hold_no_nul(scripted: ScriptedServer) -> None:
    """Lone surrogates and NUL are removed, since no database stores them."""
    read = await scripted.ask(Response(watch(title="a\0b", page_title="c\ud800d", last_error=False)), "watch")
    assert (read.title, read.page_title, read.last_error) == ("ab", "c?d", "")
    assert await scripted.ask(Response("ü\0\n".encode() + b"\xff", headers=TEXT), "snapshot") == "ü\n�"
    assert (
        await scripted.refused(Response(b"{}", headers={"content-type": "text/html"}), "snapshot")
    ).code == "changedetection_answer"


async def test_malformed_history_is_an_invalid_response(scripted: ScriptedServer) -> None:
    assert await scripted.ask(Response(b'{"20": "b", "3": "a"}'), "history") == [3, 20]
    for body in (b'{"latest": "a"}', b'{"-3": "a"}', b'{"99999999999999999999": "a"}'):
        assert (await scripted.refused(Response(body), "history")).code == "changedetection_answer"


async def test_missing_settings_are_reported() -> None:
    assert not is_set_up()
    with pytest.raises(ConfigError, match="MILLRACE_CHANGEDETECTION_URL"):
        changedetection()
    await close()
    with overridden(changedetection_url="http://[::1/"), pytest.raises(ConfigError, match="CHANGEDETECTION_URL"):
        changedetection()


@pytest.mark.parametrize(
    ("base", "begins"),
    [
        ("http://millrace:52100", "json://millrace:52100/api/webhook/changedetection?"),
        ("https://a.example/", "jsons://a.example/api/webhook/changedetection?"),
        ("https://a.example:8443/mill race/", "jsons://a.example:8443/mill%20race/api/webhook/changedetection?"),
        ("http://[::1]:80/a%20b", "json://[::1]:80/a%20b/api/webhook/changedetection?"),
    ],
)
def test_notification_url(base: str, begins: str) -> None:
    fields = notification(base, "abc")
    (url,) = fields["notification_urls"]
    rest = ":version=&:type=&:attachments=&:title=&:message=payload&+Authorization=Bearer%20abc&retry=5&wait=2&rto=10"
    assert url == begins + rest
    assert (fields["notification_body"], fields["notification_format"]) == (BODY, "text")


def test_documentation_shows_the_notification_settings() -> None:
    page = (REPOSITORY / "docs" / "changedetection.md").read_text()
    url = notification_url("https://millrace.example", "TOKEN")
    assert f"\n{BODY}\n" in page and f"`{url}`" in page


@pytest.mark.parametrize(
    ("base", "token"),
    [
        ("", "t"),
        ("ftp://a.example", "t"),
        ("http://", "t"),
        ("a.example", "t"),
        ("http://user:word@a.example", "t"),
        ("http://a.example/?x=1", "t"),
        ("http://a.example/#x", "t"),
        ("http://a.example:port", "t"),
        ("http://a .example", "t"),
        ("http://[::1", "t"),
        ("http://{{x}}.example", "t"),
        ("http://a.example", ""),
        ("http://a.example", "two words"),
        ("http://a.example", "ü"),
        ("http://a.example", "a\nb"),
        ("http://a.example", "x" * 1000),
    ],
)
def test_unusable_notification_url_is_refused(base: str, token: str) -> None:
    with pytest.raises(InvalidInput):
        notification_url(base, token)
