"""Enqueue writes one row in the caller's transaction; payloads are checked then and at the run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import InvalidInput
from app.jobs.admission import push
from app.jobs.definition import Job, definition, kinds
from app.jobs.ledger.enqueue import enqueue, enqueue_many
from app.jobs.payloads import MAX_PAYLOAD_BYTES
from app.jobs.results import MAX_RESULT_BYTES, check_result
from tests.support.databases import SettingsEnv
from tests.support.services import RedisServer
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import Chore, WorkerHarness

on_sqlite = pytest.mark.parametrize("spine_env", ["sqlite"], indirect=True)


class Letter(Job, kind="tests.enqueue.letter", payload_version=3):
    """A kind with payload version 3."""

    text: str

    @classmethod
    def upgrade(cls, payload: dict[str, Any], version: int) -> dict[str, Any]:
        return {"text": payload["body"] if version == 1 else payload["words"]}


class Tuned(Job, kind="tests.enqueue.tuned", max_tries=7):
    """Sets its number of tries."""


def test_row_is_written_in_the_callers_transaction(harness: WorkerHarness) -> None:
    """A rollback removes the row, and nothing is pushed."""

    def roll_back(session: Session) -> None:
        enqueue(session, Chore(), tenant="default")
        raise LookupError("the caller changed its mind")

    with pytest.raises(LookupError):
        harness.ledger.db.transaction(roll_back)
    assert harness.window() == []
    (job_id,) = harness.enqueue(Chore(number=7), request_id="req-1", document_id=2**40)
    row = harness.ledger.row(job_id)
    assert (row.state, row.payload, row.request_id, row.document_id) == ("queued", {"number": 7}, "req-1", 2**40)
    assert row.admitted_at is not None
    assert harness.window() == [f"{job_id}:0"]


def test_job_due_later_is_scheduled(harness: WorkerHarness) -> None:
    due_at = clock.now() + timedelta(hours=1)
    (job_id,) = harness.enqueue(Chore(), due_at=due_at)
    row = harness.ledger.row(job_id)
    assert (row.state, row.admitted_at, harness.window()) == ("scheduled", None, [])
    assert abs(row.due_at - due_at) < timedelta(milliseconds=1)


@on_sqlite
def test_max_tries_come_from_the_definition_its_delays_or_the_settings(harness: WorkerHarness) -> None:
    for job, tries in ((Chore(), 4), (Tuned(), 7), (Letter(text="x"), 4)):
        (job_id,) = harness.enqueue(job)
        assert harness.ledger.row(job_id).max_tries == tries


def test_two_thousand_jobs_are_rows_and_a_bounded_window_of_ids(harness: WorkerHarness) -> None:
    ids = harness.enqueue(*[Chore(number=number) for number in range(2000)])
    assert len(set(ids)) == 2000
    assert ids == sorted(ids)
    assert 0 < len(harness.window()) <= push.DEFAULT_WINDOW


@pytest.mark.parametrize("letter", ["x", "ä", "🎉"])
def test_payload_limit_counts_bytes(harness: WorkerHarness, letter: str) -> None:
    overhead = len('{"text":""}')
    length = (MAX_PAYLOAD_BYTES - overhead) // len(letter.encode())
    (job_id,) = harness.enqueue(Letter(text=letter * length))
    assert harness.ledger.row(job_id).payload["text"] == letter * length
    with pytest.raises(InvalidInput) as refusal:
        harness.enqueue(Letter(text=letter * (length + 1)))
    assert refusal.value.code == "payload_size"


@pytest.mark.parametrize("text", ["a\x00b", "half \ud800 a pair"])
def test_text_that_databases_cannot_store_is_refused(harness: WorkerHarness, text: str) -> None:
    with pytest.raises((InvalidInput, ValidationError)):
        harness.enqueue(Letter(text=text))


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", 'it\'s "quoted"; DROP TABLE job --', "\u2028\x7f", "{}%s:x"])
def test_any_other_text_is_stored_unchanged(harness: WorkerHarness, text: str) -> None:
    (job_id,) = harness.enqueue(Letter(text=text))
    assert harness.ledger.row(job_id).payload == {"text": text}


def test_enqueue_works_without_redis(redis_server: RedisServer, spine_env: SettingsEnv) -> None:
    """The row is in SQL; a relay pushes it later."""
    spine_env(redis_url=redis_server.url)
    harness = WorkerHarness([Chore.kind])
    try:
        redis_server.stop()
        ids = [harness.enqueue(Chore(number=number))[0] for number in range(3)]
        assert {harness.state(job_id) for job_id in ids} == {"queued"}
    finally:
        harness.close()


# Definitions


def test_payload_of_an_older_version_is_upgraded_at_the_run() -> None:
    assert Letter.load({"body": "first"}, 1) == Letter(text="first")
    assert Letter.load({"words": "second"}, 2) == Letter(text="second")
    assert Letter.load({"text": "third"}, 3) == Letter(text="third")


@pytest.mark.parametrize(
    ("payload", "version", "code"),
    [({"text": "x"}, 4, "payload_version"), ({}, 3, "payload"), ({"text": "x", "more": 1}, 3, "payload")],
)
def test_invalid_payload_is_a_permanent_error(payload: dict[str, Any], version: int, code: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Letter.load(payload, version)
    assert refusal.value.code == code
    assert code != "payload" or refusal.value.errors


def test_kind_is_defined_once_with_known_options() -> None:
    with pytest.raises(TypeError, match="defined twice"):

        class Another(Job, kind="tests.enqueue.letter"):
            pass

    with pytest.raises(TypeError, match="'timelimit' is not an option"):

        class Misspelt(Job, kind="tests.enqueue.misspelt", timelimit=3):
            pass

    with pytest.raises(TypeError, match="queue 'express' is not one of"):

        class Lost(Job, kind="tests.enqueue.lost", queue="express"):
            pass

    assert definition("tests.enqueue.letter") is Letter
    assert definition("tests.enqueue.lost") is None
    assert kinds() == sorted(kinds())


# Results


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({"text": "x" * MAX_RESULT_BYTES}, "result_size"),
        ({"text": "ä" * (MAX_RESULT_BYTES // 2)}, "result_size"),
        (["a", "list"], "result"),
        ({"when": object()}, "result"),
        ({"number": float("nan")}, "result"),
    ],
)
def test_result_that_is_no_small_json_object_is_refused(result: Any, code: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_result(result)
    assert refusal.value.code == code


def test_result_of_the_largest_size_is_stored(make_harness: Callable[..., WorkerHarness]) -> None:
    largest = {"text": "x" * (MAX_RESULT_BYTES - len('{"text": ""}'))}
    assert check_result(largest) == largest
    assert check_result(None) is None
    harness = make_harness()
    (job_id,) = harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    run.result = largest
    harness.end(run)
    harness.until(job_id, "succeeded")
    wait_until(lambda: harness.ledger.row(job_id).result == largest, what="the result")


def test_jobs_of_one_call_share_its_options(harness: WorkerHarness) -> None:
    rows = harness.ledger.db.transaction(
        enqueue_many, [Chore(number=1), Chore(number=2)], tenant="acme", request_id="r", expires_at=clock.now()
    )
    assert {(row.tenant, row.request_id) for row in map(harness.ledger.row, [row.id for row in rows])} == {
        ("acme", "r")
    }
