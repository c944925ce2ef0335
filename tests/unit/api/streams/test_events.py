"""A job's events over SSE: snapshot, live, resumed, reset, ended; with Redis, without it, and with it back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from redis import Redis

from app.jobs.models import JobRow
from app.main import create_app
from tests.support.databases import SettingsEnv
from tests.support.job_events import publish_event, set_job
from tests.support.services import RedisServer
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api, served
from tests.unit.api.streams.following import follow, parse

Make = Callable[..., JobRow]


def watched(api: Api, job: JobRow) -> None:
    wait_until(lambda: api.hub.subscriber_count > 0, what=f"job {job.id} to be followed")


def test_a_snapshot_comes_first_then_live_events_and_the_end_closes_the_stream(api: Api, errand: Make) -> None:
    job = errand()
    with follow(api.client, job.id) as stream:
        first = next(stream)
        assert (first.name, first.id, first.data["state"], first.data["snapshot"]) == ("state", 0, "queued", True)
        numbers = [publish_event(job, 0, state="running", name="state"), publish_event(job, 10)]
        assert [(e.id, e.name, e.data["percent"]) for e in (next(stream), next(stream))] == [
            (numbers[0], "state", 0),
            (numbers[1], "progress", 10),
        ]
        publish_event(job, 100, state="succeeded", name="end")
        rest = list(stream)
    assert [(e.name, e.data["state"], e.data["percent"]) for e in rest] == [("end", "succeeded", 100)]
    wait_until(lambda: api.hub.subscriber_count == 0, what="the follower to be forgotten")


def test_new_stream_gets_events_newer_than_the_snapshot(api: Api, errand: Make) -> None:
    job = errand()
    for percent in (10, 20, 30):
        publish_event(job, percent)
    with follow(api.client, job.id) as stream:
        assert [next(stream).data["percent"], next(stream).data["percent"]] == [None, 30]


def test_a_follower_resumes_without_a_gap_on_any_replica(api: Api, errand: Make) -> None:
    job = errand()
    numbers = [publish_event(job, percent) for percent in (10, 20, 30, 40)]
    with follow(api.client, job.id, **{"Last-Event-ID": str(numbers[1])}) as stream:
        missed = [next(stream), next(stream)]
        assert [(e.id, e.data["percent"]) for e in missed] == [(numbers[2], 30), (numbers[3], 40)]
        assert "snapshot" not in missed[0].data
        live = publish_event(job, 50)
        assert next(stream).id == live


def test_the_query_may_carry_the_last_event_id(lite_api: Api, errand: Make) -> None:
    job = errand()
    numbers = [publish_event(job, percent) for percent in (10, 20)]
    with lite_api.client.stream("GET", f"/api/jobs/{job.id}/events?last_event_id={numbers[0]}") as response:
        assert next(parse(response.iter_lines())).id == numbers[1]


@pytest.mark.parametrize("unknown", ["999", "abc", "-1", "1.5", "9" * 40, ""])
def test_unknown_event_id_gets_a_reset_snapshot(lite_api: Api, errand: Make, unknown: str) -> None:
    job = errand()
    publish_event(job, 10)
    with follow(lite_api.client, job.id, **{"Last-Event-ID": unknown}) as stream:
        assert next(stream).data["reset"] is True


def test_trimmed_event_id_gets_a_reset(lite_api: Api, errand: Make) -> None:
    job = errand()
    for percent in range(400):
        publish_event(job, percent / 4)
    with follow(lite_api.client, job.id, **{"Last-Event-ID": "3"}) as stream:
        assert next(stream).data["reset"] is True
        assert next(stream).data["percent"] == 99.75


def test_ended_job_sends_its_end_then_204(api: Api, errand: Make) -> None:
    job = errand()
    set_job(job, state="failed", tries=4, error_type="Boom", error_message="it broke")
    with follow(api.client, job.id) as stream:
        [only] = list(stream)
    assert (only.name, only.data["state"], only.data["message"]) == ("end", "failed", "it broke")
    again = api.client.get(f"/api/jobs/{job.id}/events", headers={"Last-Event-ID": str(only.id)})
    assert again.status_code == 204


def test_missed_end_is_replayed_once(lite_api: Api, errand: Make) -> None:
    job = errand()
    before = publish_event(job, 50)
    set_job(job, state="succeeded")
    end = publish_event(job, 100, state="succeeded", name="end")
    with follow(lite_api.client, job.id, **{"Last-Event-ID": str(before)}) as stream:
        assert [(e.id, e.name) for e in stream] == [(end, "end")]
    assert lite_api.client.get(f"/api/jobs/{job.id}/events?last_event_id={end}").status_code == 204


def test_lost_end_is_read_from_the_ledger(api: Api, errand: Make) -> None:
    """The worker's publish got lost; the bar does not outlive the job."""
    job = errand()
    with follow(api.client, job.id) as stream:
        next(stream)
        publish_event(job, 40)
        next(stream)
        set_job(job, state="succeeded", progress={"percent": 100, "stage": "come", "seq": 2})
        [end] = list(stream)
    assert (end.name, end.data["state"], end.data["percent"]) == ("end", "succeeded", 100)


def test_cancel_ends_the_stream_of_a_job_that_has_not_started(lite_api: Api, errand: Make) -> None:
    job = errand()
    with follow(lite_api.client, job.id) as stream:
        next(stream)
        assert lite_api.client.post(f"/api/jobs/{job.id}/cancel").json()["state"] == "cancelled"
        assert [(e.name, e.data["state"]) for e in stream] == [("end", "cancelled")]


def test_a_retry_after_an_end_starts_a_new_stream(lite_api: Api, errand: Make) -> None:
    job = errand()
    publish_event(job, 40)
    lite_api.client.post(f"/api/jobs/{job.id}/cancel")
    retried = lite_api.client.post(f"/api/jobs/{job.id}/retry")
    assert (retried.status_code, retried.json()["state"]) == (202, "queued")
    with follow(lite_api.client, job.id) as stream:
        assert next(stream).data["state"] == "queued"
        publish_event(job, 5)
        assert 5 in [next(stream).data["percent"], next(stream).data["percent"]][-2:]


def test_progress_and_end_arrive_during_a_redis_outage(
    sqlite_url: str, redis_server: RedisServer, settings_env: SettingsEnv, errand: Make
) -> None:
    settings_env(database_url=sqlite_url, redis_url=redis_server.url)
    with served(create_app()) as api:
        wait_until(lambda: api.hub.has_redis, what="the hub to reach Redis")
        job, other = errand(), errand()
        with follow(api.client, job.id) as stream:
            next(stream)
            publish_event(job, 40)
            assert next(stream).data["percent"] == 40
            redis_server.kill()
            wait_until(lambda: not api.hub.has_redis, what="the hub to notice")
            # The row lags behind what was told, and a bar does not go back.
            set_job(job, state="running", progress={"percent": 30, "stage": "go", "seq": 1})
            polled = api.hub.turns
            wait_until(lambda: api.hub.turns > polled + 1, what="two looks at the ledger")
            set_job(job, progress={"percent": 60, "stage": "come", "seq": 1})
            later = next(stream)
            assert (later.name, later.data["percent"]) == ("progress", 60)
            with follow(api.client, other.id) as second:
                assert next(second).data["state"] == "queued"
                set_job(other, state="failed", error_type="X", error_message="y")
                assert [e.name for e in second] == ["end"]
            set_job(job, state="succeeded")
            assert [e.name for e in stream] == ["end"]


def test_streams_continue_after_an_outage(
    sqlite_url: str, redis_server: RedisServer, settings_env: SettingsEnv, errand: Make
) -> None:
    settings_env(database_url=sqlite_url, redis_url=redis_server.url)
    with served(create_app()) as api:
        wait_until(lambda: api.hub.has_redis, what="the hub to reach Redis")
        job = errand()
        set_job(job, state="running")
        with follow(api.client, job.id) as stream:
            next(stream)
            publish_event(job, 10)
            assert next(stream).data["percent"] == 10
            redis_server.kill()
            wait_until(lambda: not api.hub.has_redis, what="the hub to notice")
            redis_server.start()
            wait_until(lambda: api.hub.has_redis, what="the hub to come back")
            redis_server.flush()
            publish_event(job, 20, seed=1)
            assert next(stream).data["percent"] == 20


def test_suspended_redis_counts_as_an_outage(
    sqlite_url: str, redis_server: RedisServer, settings_env: SettingsEnv, errand: Make
) -> None:
    settings_env(database_url=sqlite_url, redis_url=redis_server.url)
    with served(create_app()) as api:
        wait_until(lambda: api.hub.has_redis, what="the hub to reach Redis")
        job = errand()
        with follow(api.client, job.id) as stream:
            next(stream)
            redis_server.process.freeze()
            try:
                wait_until(lambda: not api.hub.has_redis, what="the hub to notice the silence")
                set_job(job, state="succeeded")
                assert [e.name for e in stream] == ["end"]
            finally:
                redis_server.process.wake()


def test_many_followers_share_two_connections_to_redis(lite_api: Api, redis_url: str, errand: Make) -> None:
    job, other = errand(), errand()
    with ExitStack() as stack, Redis.from_url(redis_url) as redis:
        streams = [stack.enter_context(follow(lite_api.client, (job, other)[i % 2].id)) for i in range(20)]
        for stream in streams:
            next(stream)
        publish_event(job, 33)
        publish_event(other, 33)
        assert {next(stream).data["percent"] for stream in streams} == {33}
        names = [client["name"] for client in redis.client_list()]
        assert names.count("millrace-events") == 2
        assert dict(redis.pubsub_numsub(f"mr:e:{job.id}")) == {f"mr:e:{job.id}".encode(): 1}
    wait_until(lambda: lite_api.hub.subscriber_count == 0, what="all followers to be forgotten")


def test_stopping_the_server_ends_streams_with_a_hint_when_to_come_back(lite_api: Api, errand: Make) -> None:
    job = errand()
    with lite_api.client.stream("GET", f"/api/jobs/{job.id}/events") as response:
        lines = response.iter_lines()
        assert next(lines).startswith("retry: ")
        next(parse(lines))
        lite_api.hub.hang_up_soon()
        assert [line for line in lines if line][-1].startswith("retry: ")
    refused = lite_api.client.get(f"/api/jobs/{job.id}/events")
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "stopping", "1")


def test_a_document_s_latest_job_is_shown_or_followed(lite_api: Api, errand: Make) -> None:
    errand(document_id=7)
    job = errand(document_id=7)
    assert lite_api.client.get("/api/documents/7/progress").json()["id"] == job.id
    headers = {"Accept": "text/event-stream"}
    with lite_api.client.stream("GET", "/api/documents/7/progress", headers=headers) as response:
        assert next(parse(response.iter_lines())).data["job_id"] == job.id


@pytest.mark.parametrize("odd", ["8", "0", "x", "-7", "7.0", "٧", "9" * 30])
def test_a_document_without_a_job_is_not_found(lite_api: Api, odd: str) -> None:
    assert lite_api.client.get(f"/api/documents/{odd}/progress").status_code == 404


def test_job_of_another_tenant_is_not_found(lite_api: Api, errand: Make) -> None:
    job = errand(tenant="other")
    for path in ("", "/events"):
        assert lite_api.client.get(f"/api/jobs/{job.id}{path}").status_code == 404
    assert lite_api.client.post(f"/api/jobs/{job.id}/cancel").status_code == 404


def test_malformed_message_on_a_channel_is_ignored(lite_api: Api, redis_url: str, errand: Make) -> None:
    job = errand()
    with follow(lite_api.client, job.id) as stream, Redis.from_url(redis_url) as redis:
        next(stream)
        for odd in ("", "{", "[]", "7", "null", '{"seq": "x"}', '{"seq": 1, "event": "progress"}', b"\xff\xfe"):
            redis.publish(f"mr:e:{job.id}", odd)
        publish_event(job, 66)
        assert next(stream).data["percent"] == 66
