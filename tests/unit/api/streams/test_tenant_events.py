"""A tenant's events: all of its jobs', filtered, resumed, never another's; with Redis, after it was away, and slow."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest
from redis import Redis

from app.core.db import database
from app.jobs.events import publish
from app.jobs.events.publish import JobEvent
from app.jobs.models import JobRow
from app.main import create_app
from tests.support.api_keys import holder
from tests.support.databases import SettingsEnv
from tests.support.job_events import publish_event
from tests.support.services import RedisServer
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api, served

Make = Callable[..., JobRow]


class EventReader:
    """Reads the events of a stream, each with its id."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()
        self.last_id: str | None = None

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        name = data = None
        for line in self._lines:
            field, _, value = line.partition(": ")
            if field == "id":
                self.last_id = value
            elif field == "event":
                name = value
            elif field == "data":
                data = value
            elif not line and name and data:
                yield name, json.loads(data)
                name = data = None

    def next(self) -> tuple[str, dict[str, Any]]:
        return next(iter(self))

    def percents(self, count: int) -> list[float]:
        return [self.next()[1]["percent"] for _ in range(count)]


@contextmanager
def follow(client: httpx.Client, last: str | None = None, **filters: str) -> Iterator[EventReader]:
    headers = {} if last is None else {"Last-Event-ID": last}
    with client.stream("GET", "/api/events", params=filters, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield EventReader(response)


def test_events_of_all_jobs_come_with_their_kind(api: Api, errand: Make) -> None:
    plain_job, document_job = errand(), errand(document_id=7)
    with follow(api.client) as stream:
        assert stream.next()[0] == "open"
        publish_event(plain_job, 10)
        publish_event(document_job, 20)
        publish_event(document_job, 100, "end", "succeeded")
        events = [stream.next() for _ in range(3)]
    assert [(name, data["job_id"], data["percent"]) for name, data in events] == [
        ("progress", plain_job.id, 10),
        ("progress", document_job.id, 20),
        ("end", document_job.id, 100),
    ]
    _, data = events[2]
    assert (data["kind"], data["queue"], data["document_id"]) == ("tests.unit.api.errand", "default", "7")
    assert data["id"] == stream.last_id
    wait_until(lambda: api.hub.subscriber_count == 0, what="the follower to be forgotten")


def test_stream_resumes_after_the_last_event_id(api: Api, errand: Make) -> None:
    job = errand()
    with follow(api.client) as stream:
        stream.next()
        publish_event(job, 1)
        assert stream.percents(1) == [1]
    for percent in (2, 3, 4):
        publish_event(job, percent)
    with follow(api.client, stream.last_id) as again:
        assert again.next()[0] == "open"
        assert again.percents(3) == [2, 3, 4]
        publish_event(job, 5)
        assert again.percents(1) == [5]


def test_a_long_absence_is_read_page_by_page(lite_api: Api, errand: Make) -> None:
    job = errand()
    publish_event(job, 0)
    with follow(lite_api.client) as stream:
        stream.next()
    publish.publish([JobEvent(job.id, job.tenant, "progress", "running", 1, {"percent": n}) for n in range(1, 1301)])
    with follow(lite_api.client, stream.last_id) as again:
        assert again.next()[0] == "open"
        assert again.percents(1300) == list(range(1, 1301))


@pytest.mark.parametrize("unknown", ["1-0", "99999999999999-0", "abc", "", "1", "9" * 40])
def test_unknown_event_id_gets_a_reset(lite_api: Api, errand: Make, unknown: str) -> None:
    job = errand()
    publish_event(job, 10)
    with follow(lite_api.client, unknown) as stream:
        assert [stream.next()[0], stream.next()[0]] == ["open", "reset"]
        publish_event(job, 20)
        assert 20 in {stream.next()[1]["percent"] for _ in range(2 if unknown == "1-0" else 1)}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"event": "end"}, [2]),
        ({"state": "retrying,succeeded"}, [2, 4]),
        ({"kind": "tests.unit.api.*"}, [1, 2, 3, 4]),
        ({"kind": "other,tests.unit.api.errand", "event": "progress"}, [1, 3]),
        ({"document_id": "7"}, [3]),
        ({"queue": "default", "document_id": "7"}, [3]),
        ({"queue": "bulk"}, []),
        ({"kind": "tests"}, []),
    ],
)
def test_filters(lite_api: Api, errand: Make, filters: dict[str, str], expected: list[int]) -> None:
    plain_job, document_job = errand(), errand(document_id=7)
    last = errand(document_id=9)
    with follow(lite_api.client, **filters) as stream, follow(lite_api.client) as everything:
        assert stream.next()[0] == everything.next()[0] == "open"
        publish_event(plain_job, 1)
        publish_event(plain_job, 2, "end", "succeeded")
        publish_event(document_job, 3)
        publish_event(last, 4, "state", "retrying")
        assert everything.percents(4) == [1, 2, 3, 4]
        assert stream.percents(len(expected)) == expected


@pytest.mark.parametrize("wrong", ["state=odd", "queue=odd", "event=odd", "document_id=x", "document_id=-1"])
def test_invalid_filter_is_refused(lite_api: Api, wrong: str) -> None:
    answer = lite_api.client.get(f"/api/events?{wrong}")
    assert (answer.status_code, answer.json()["status"]) == (422, 422)


def test_events_of_another_tenant_are_not_sent(lite_api: Api, errand: Make) -> None:
    ours, theirs = errand(), errand(tenant="other")
    with follow(lite_api.client) as stream:
        stream.next()
        publish_event(theirs, 1)
        publish_event(ours, 2)
        assert stream.next()[1]["job_id"] == ours.id


def test_key_for_kinds_receives_their_events_only(lite_api: Api, errand: Make) -> None:
    job = errand()
    with (
        holder(lite_api, "kind:tests.unit.api.*") as ours,
        holder(lite_api, "kind:tests.other") as others,
        follow(ours) as stream,
        follow(others) as deaf,
        follow(others, kind="tests.unit.api.errand") as asking,
        follow(lite_api.client) as everything,
    ):
        for each in (stream, deaf, asking, everything):
            assert each.next()[0] == "open"
        publish_event(job, 5)
        assert stream.percents(1) == everything.percents(1) == [5]
        lite_api.hub.hang_up_soon()
        assert list(deaf) == list(asking) == []


def test_malformed_message_is_ignored(lite_api: Api, redis_url: str, errand: Make) -> None:
    job = errand()
    with follow(lite_api.client) as stream, Redis.from_url(redis_url) as redis:
        stream.next()
        for odd in ("", "{", "7", "1-0", "1-0 {", "1-0 []", '1-0 {"event": 7}', "x {}", b"\xff\xfe"):
            redis.publish("mr:e:t:default", odd)
        publish_event(job, 66)
        assert stream.percents(1) == [66]


def test_all_followers_share_two_connections_to_redis(lite_api: Api, redis_url: str, errand: Make) -> None:
    job = errand()
    with (
        follow(lite_api.client) as first_stream,
        follow(lite_api.client) as second_stream,
        Redis.from_url(redis_url) as redis,
    ):
        assert first_stream.next()[0] == second_stream.next()[0] == "open"
        publish_event(job, 5)
        assert first_stream.percents(1) == second_stream.percents(1) == [5]
        names = [client["name"] for client in redis.client_list()]
        assert names.count("millrace-events") == 2


def test_redis_outage_sends_a_reset_event(
    sqlite_url: str, redis_server: RedisServer, settings_env: SettingsEnv, errand: Make
) -> None:
    settings_env(database_url=sqlite_url, redis_url=redis_server.url)
    with served(create_app()) as api:
        wait_until(lambda: api.hub.has_redis, what="the hub to reach Redis")
        job = errand()
        with follow(api.client) as stream:
            stream.next()
            publish_event(job, 10)
            assert stream.percents(1) == [10]
            redis_server.kill()
            wait_until(lambda: not api.hub.has_redis, what="the hub to notice")
            with follow(api.client) as late:
                assert late.next()[0] == "open"
                redis_server.start()
                assert stream.next()[0] == late.next()[0] == "reset"
                redis_server.flush()
                publish_event(job, 20)
                assert stream.percents(1) == late.percents(1) == [20]


def test_events_wait_for_the_database_and_do_not_delay_a_stop(lite_api: Api, errand: Make) -> None:
    known, job, other = errand(), errand(), errand()
    with follow(lite_api.client) as stream:
        stream.next()
        publish_event(known, 1)
        assert stream.percents(1) == [1]
        rename("job", "gone")
        publish_event(job, 2)
        publish_event(known, 3)
        turn = lite_api.hub.turns
        wait_until(lambda: lite_api.hub.turns > turn + 1, what="the api to ask in vain")
        rename("gone", "job")
        assert stream.percents(2) == [2, 3]
        rename("job", "gone")
        publish_event(other, 4)
        lite_api.hub.hang_up_soon()
        assert list(stream) == []


def rename(table: str, name: str) -> None:
    """Rename a table, so that queries of it fail like those of a database that is down."""
    with closing(sqlite3.connect(database().engine.url.database or "", timeout=20)) as connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO {name}")
        connection.commit()


def test_stopping_the_server_ends_the_stream(lite_api: Api) -> None:
    with follow(lite_api.client) as stream:
        assert stream.next()[0] == "open"
        lite_api.hub.hang_up_soon()
        assert list(stream) == []
    refused = lite_api.client.get("/api/events")
    assert (refused.status_code, refused.json()["code"]) == (503, "stopping")
