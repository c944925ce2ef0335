"""A real changedetection.io that watches a page of the test, and its errors for missing watches."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from app.clients.changedetection import (
    ChangeDetection,
    WatchRequest,
    changedetection,
    close_changedetection,
    interval_fields,
)
from app.clients.changedetection_template import notification
from app.core.errors import AppError, NotFound, Rejected, Unavailable
from app.core.settings import overridden
from tests.fakes.server import FakeServer, Request, Response
from tests.support.changedetection import VERSION, ChangeDetectionServer
from tests.support.command import millrace
from tests.support.waiting import wait_until_async

# It takes seconds to start, and a second or two for each check of a page.
pytestmark = [pytest.mark.anyio, pytest.mark.slow]
UNKNOWN_UUID = "9f0d40e2-48b3-429e-ac12-706728affa97"
TOKEN = "s3cret/with+odd=signs&%20{{token}}\"'~"


class Site:
    """A page whose text a test changes, and a receiver that records notifications."""

    def __init__(self) -> None:
        self.text = "Price: 10.00 EUR"
        self.notifications: list[Request] = []
        self.refusals = 0
        self.server = FakeServer(self.answer)
        self.url = self.server.url
        self.address = f"{self.url}/prices"

    def answer(self, request: Request) -> Response:
        if request.method == "POST":
            self.notifications.append(request)
            return Response(status=503 if len(self.notifications) <= self.refusals else 202)
        if request.path != "/prices":
            return Response(b"no such page", 404)
        page = f"<html><title>Prices</title><pre>\n{self.text}\n</pre></html>"
        return Response(page.encode(), headers={"content-type": "text/html; charset=utf-8"})


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    with made.server.running():
        yield made


@pytest.fixture
def instance(changedetection_server: ChangeDetectionServer) -> Iterator[ChangeDetectionServer]:
    with overridden(**changedetection_server.settings):
        yield changedetection_server


@pytest.fixture
async def client(instance: ChangeDetectionServer) -> AsyncIterator[ChangeDetection]:
    yield changedetection()
    await close_changedetection()


async def seen(client: ChangeDetection, uuid: str, times: int) -> list[int]:
    """Wait for this number of snapshots and return their keys."""

    async def keys() -> list[int]:
        timestamps = await client.history(uuid)
        return timestamps if len(timestamps) >= times else []

    return await wait_until_async(keys, timeout_s=30, what=f"{times} snapshots")


async def changed(client: ChangeDetection, site: Site, text: str, request: WatchRequest) -> tuple[str, list[int]]:
    """Create a watch whose page has changed once."""
    uuid = await client.create(request)
    first = await seen(client, uuid, 1)
    site.text = text
    await client.recheck(uuid)
    keys = await seen(client, uuid, 2)
    assert keys[:1] == first
    return uuid, keys


async def wait_for_notifications(site: Site, times: int) -> Request:
    async def arrived() -> bool:
        return len(site.notifications) >= times

    await wait_until_async(arrived, timeout_s=30, what=f"{times} notifications")
    assert len(site.notifications) == times
    return site.notifications[-1]


async def test_change_is_notified_in_the_requested_shape(client: ChangeDetection, site: Site) -> None:
    """A watch is created, checked, changed, notified, read and deleted."""
    tag = await client.tag("Shop")
    notification_fields = notification(f"{site.url}/here%20we%20are/", TOKEN)
    watch_request = WatchRequest(
        site.address, title="Example prices", tags=(tag,), every_s=93784, notification=notification_fields
    )
    uuid, keys = await changed(client, site, "Price: 12.50 EUR", watch_request)

    request = await wait_for_notifications(site, 1)
    assert (request.method, request.path) == ("POST", "/here%20we%20are/api/webhook/changedetection")
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["content-type"] == "application/json"
    body = json.loads(request.body)
    print(json.dumps(body, indent=1))
    assert list(body) == ["payload"]
    payload = json.loads(body["payload"])
    assert payload.pop("changed_at").endswith("+0000")
    diff = payload.pop("diff")
    assert "\n-Price: 10.00 EUR\n+Price: 12.50 EUR" in diff
    assert payload == {
        "event": "watch.changed",
        "watch_uuid": uuid,
        "watch_url": site.address,
        "title": "Example prices",
        "history_key": str(keys[-1]),
        "tags": "Shop",
    }

    watch = await client.watch(uuid)
    assert (watch.url, watch.title, watch.page_title, watch.tags) == (site.address, "Example prices", "Prices", (tag,))
    assert (watch.paused, watch.last_error, watch.history_n) == (False, "", 2)
    assert watch.last_changed == keys[-1] and watch.last_checked >= keys[0]
    assert "10.00" in await client.snapshot(uuid, keys[0]) and "12.50" in await client.snapshot(uuid)
    difference = await client.difference(uuid, *keys)
    assert "10.00" in difference and "12.50" in difference and difference == await client.difference(uuid)
    assert (await client.ping()).watch_count == 1

    await client.delete(uuid)
    await client.delete(uuid)
    assert await client.find(site.address) == []


async def test_any_page_text_arrives_unchanged_in_the_notification(client: ChangeDetection, site: Site) -> None:
    """Quotes, templates, markup and 100,000 characters arrive unchanged; a missing receiver is retried."""
    site.refusals = 1
    odd = 'say "hi" \\ {{ 7*7 }} {% raw %} %20 &amp; &lt;script&gt; Übergröße 🙂 \t end'
    lines = "\n".join(f"line {n} of a long page, all of which is new" for n in range(2500))
    uuid, keys = await changed(
        client,
        site,
        f"{odd}\n{lines}",
        WatchRequest(site.address, notification=notification(f"{site.url}/here we are", "t")),
    )
    request = await wait_for_notifications(site, 2)
    payload = json.loads(json.loads(request.body)["payload"])
    assert payload["watch_uuid"] == uuid and payload["history_key"] == str(keys[-1]) and payload["title"] == "Prices"
    assert 'say "hi" \\ {{ 7*7 }} {% raw %} %20 & <script> Übergröße 🙂' in payload["diff"]
    assert payload["diff"].count("\n+line") == 2500


async def test_watches_are_listed_by_tag_and_found_by_address(client: ChangeDetection, site: Site) -> None:
    tag = await client.tag("Millrace")
    assert tag == await client.tag(" millrace ")
    here = await client.create(WatchRequest(site.address, tags=(tag,)))
    second_uuid = await client.create(WatchRequest(site.address))
    other = await client.create(WatchRequest(f"{site.url}/PRICES", title=site.address))
    braces = await client.create(WatchRequest(f"{site.url}/{{{{1}}}}"))
    assert {watch.uuid for watch in await client.find(site.address)} == {here, second_uuid}
    assert [watch.uuid for watch in await client.find(f"{site.url}/{{{{1}}}}")] == [braces]
    assert set(await client.watches()) == {here, second_uuid, other, braces}
    assert {uuid: watch.tags for uuid, watch in (await client.watches("MillRace")).items()} == {here: (tag,)}
    assert await client.watches("no such tag") == {}


async def test_a_watch_is_changed(instance: ChangeDetectionServer, client: ChangeDetection, site: Site) -> None:
    uuid = await client.create(WatchRequest(site.address, every_s=30, more={"include_filters": ["pre"]}))
    await client.update(uuid, paused=True, title="Other", **interval_fields(90061), **notification(site.url, "token"))
    watch = await client.watch(uuid)
    assert (watch.paused, watch.title) == (True, "Other")
    there = instance.ask("GET", f"/watch/{uuid}").json()
    assert there["time_between_check"] == {"weeks": 0, "days": 1, "hours": 1, "minutes": 1, "seconds": 1}
    assert there["notification_format"] == "text" and there["include_filters"] == ["pre"]
    with pytest.raises(Rejected, match="Unknown field") as caught:
        await client.update(uuid, no_such_field=1)
    assert caught.value.code == "changedetection_rejected"


async def test_failed_page_has_its_error(client: ChangeDetection, site: Site) -> None:
    uuid = await client.create(WatchRequest(f"{site.url}/nothing"))

    async def failed() -> str:
        return (await client.watch(uuid)).last_error

    assert await wait_until_async(failed, timeout_s=30, what="its error")
    assert await client.history(uuid) == []


@pytest.mark.parametrize("uuid", [UNKNOWN_UUID, "../systeminfo", "", "9f0d40e2", "\0"])
async def test_missing_watch_raises_not_found(client: ChangeDetection, uuid: str) -> None:
    for ask in (
        client.watch(uuid),
        client.history(uuid),
        client.snapshot(uuid),
        client.snapshot(uuid, 12),
        client.difference(uuid),
        client.recheck(uuid),
        client.update(uuid, paused=True),
    ):
        with pytest.raises(NotFound) as caught:
            await ask
        assert caught.value.code == "changedetection_missing"
    await client.delete(uuid)


async def test_a_watch_without_its_snapshots(client: ChangeDetection, site: Site) -> None:
    uuid = await client.create(WatchRequest(site.address))
    keys = await seen(client, uuid, 1)
    for ask in (client.snapshot(uuid, 12), client.difference(uuid), client.difference(uuid, 12, keys[0])):
        with pytest.raises(NotFound):
            await ask


@pytest.mark.parametrize("suffix", ["", "/", "/api/v1", "/api/v1/"])
async def test_its_address_may_be_written_in_several_ways(instance: ChangeDetectionServer, suffix: str) -> None:
    with overridden(changedetection_url=instance.url + suffix):
        try:
            assert (await changedetection().ping()).version == VERSION
        finally:
            await close_changedetection()


@pytest.mark.parametrize(
    ("setting", "error", "code"),
    [
        ({"changedetection_api_key": "wrong"}, Rejected, "changedetection_key"),
        ({"changedetection_api_key": ""}, Rejected, "changedetection_key"),
        ({"changedetection_url": "http://127.0.0.1:1"}, Unavailable, "changedetection_unavailable"),
    ],
)
async def test_a_wrong_setting(
    instance: ChangeDetectionServer, setting: dict[str, str], error: type[AppError], code: str
) -> None:
    with overridden(**setting):
        try:
            with pytest.raises(error) as caught:
                await changedetection().ping()
        finally:
            await close_changedetection()
    assert caught.value.code == code and "wrong" not in caught.value.message


async def test_html_page_instead_of_the_api_is_reported(instance: ChangeDetectionServer) -> None:
    """A 404 for a wrong URL must not be read as "that watch is gone"."""
    with overridden(changedetection_url=f"{instance.url}/elsewhere"):
        client = changedetection()
        try:
            for ask in (client.ping(), client.watch(UNKNOWN_UUID), client.delete(UNKNOWN_UUID), client.watches()):
                with pytest.raises(Rejected) as caught:
                    await ask
                assert caught.value.code == "changedetection_answer"
        finally:
            await close_changedetection()


def test_doctor_checks_changedetection(instance: ChangeDetectionServer) -> None:
    def line(**settings: str) -> tuple[str, str]:
        env = {f"MILLRACE_{name}".upper(): value for name, value in (instance.settings | settings).items()}
        ran = millrace("doctor", "--json", env={**os.environ, **env})
        (watching,) = (row for row in ran.json if row["check"] == "watching")
        return watching["state"], watching["found"]

    assert line() == ("ok", f"changedetection.io {VERSION} at {instance.url}, 0 watches")
    state, message = line(changedetection_api_key="wrong")
    assert state == "fail" and "MILLRACE_CHANGEDETECTION_API_KEY" in message
