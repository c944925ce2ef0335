"""A request for work: one row in the caller's transaction, checked when it is made and when it is run."""

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
from app.jobs.ledger.enqueue import MAX_PAYLOAD_BYTES, enqueue, enqueue_many
from app.jobs.results import MAX_RESULT_BYTES, check_result
from tests.support.databases import SettingsEnv
from tests.support.services import RedisServer
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import Chore, Desk

on_sqlite = pytest.mark.parametrize("spine_env", ["sqlite"], indirect=True)


class Letter(Job, kind="tests.enqueue.letter", payload_version=3):
    """Its payload has changed twice."""

    text: str

    @classmethod
    def upgrade(cls, payload: dict[str, Any], version: int) -> dict[str, Any]:
        return {"text": payload["body"] if version == 1 else payload["words"]}


class Tuned(Job, kind="tests.enqueue.tuned", max_tries=7):
    """Says itself how often it is tried."""


def test_the_row_is_written_with_the_callers_transaction(desk: Desk) -> None:
    """Rolled back with it, and then nothing is pushed."""

    def torn(session: Session) -> None:
        enqueue(session, Chore(), tenant="default")
        raise LookupError("the caller changed its mind")

    with pytest.raises(LookupError):
        desk.ledger.db.transaction(torn)
    assert desk.listed() == []
    (job_id,) = desk.enqueue(Chore(number=7), request_id="req-1", document_id=2**40)
    row = desk.ledger.row(job_id)
    assert (row.state, row.payload, row.request_id, row.document_id) == ("queued", {"number": 7}, "req-1", 2**40)
    assert row.admitted_at is not None
    assert desk.listed() == [f"{job_id}:0"]


def test_what_is_due_later_waits_as_scheduled(desk: Desk) -> None:
    due_at = clock.now() + timedelta(hours=1)
    (job_id,) = desk.enqueue(Chore(), due_at=due_at)
    row = desk.ledger.row(job_id)
    assert (row.state, row.admitted_at, desk.listed()) == ("scheduled", None, [])
    assert abs(row.due_at - due_at) < timedelta(milliseconds=1)


@on_sqlite
def test_tries_come_from_the_definition_else_from_its_delays_else_from_the_settings(desk: Desk) -> None:
    for job, tries in ((Chore(), 4), (Tuned(), 7), (Letter(text="x"), 4)):
        (job_id,) = desk.enqueue(job)
        assert desk.ledger.row(job_id).max_tries == tries


def test_ten_thousand_jobs_at_once_are_rows_and_a_window_of_ids(desk: Desk) -> None:
    ids = desk.enqueue(*[Chore(number=number) for number in range(2000)])
    assert len(set(ids)) == 2000
    assert ids == sorted(ids)
    assert 0 < len(desk.listed()) <= push.DEFAULT_WINDOW


@pytest.mark.parametrize("letter", ["x", "ä", "🎉"])
def test_a_payload_has_its_limit_in_bytes(desk: Desk, letter: str) -> None:
    frame = len('{"text":""}')
    most = (MAX_PAYLOAD_BYTES - frame) // len(letter.encode())
    (job_id,) = desk.enqueue(Letter(text=letter * most))
    assert desk.ledger.row(job_id).payload["text"] == letter * most
    with pytest.raises(InvalidInput) as refusal:
        desk.enqueue(Letter(text=letter * (most + 1)))
    assert refusal.value.code == "payload_size"


@pytest.mark.parametrize("text", ["a\x00b", "half \ud800 a pair"])
def test_a_text_that_no_database_holds_is_refused(desk: Desk, text: str) -> None:
    with pytest.raises((InvalidInput, ValidationError)):
        desk.enqueue(Letter(text=text))


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", 'it\'s "quoted"; DROP TABLE job --', "\u2028\x7f", "{}%s:x"])
def test_any_other_text_arrives_as_it_was(desk: Desk, text: str) -> None:
    (job_id,) = desk.enqueue(Letter(text=text))
    assert desk.ledger.row(job_id).payload == {"text": text}


def test_without_redis_a_request_is_still_taken(redis_server: RedisServer, spine_env: SettingsEnv) -> None:
    """It lies in SQL, and a relay finds it later."""
    spine_env(redis_url=redis_server.url)
    desk = Desk([Chore.kind])
    try:
        redis_server.stop()
        ids = [desk.enqueue(Chore(number=number))[0] for number in range(3)]
        assert {desk.state(job_id) for job_id in ids} == {"queued"}
    finally:
        desk.close()


# Definitions


def test_a_payload_of_an_older_version_is_upgraded_when_it_is_run() -> None:
    assert Letter.load({"body": "first"}, 1) == Letter(text="first")
    assert Letter.load({"words": "second"}, 2) == Letter(text="second")
    assert Letter.load({"text": "third"}, 3) == Letter(text="third")


@pytest.mark.parametrize(
    ("payload", "version", "code"),
    [({"text": "x"}, 4, "payload_version"), ({}, 3, "payload"), ({"text": "x", "more": 1}, 3, "payload")],
)
def test_a_payload_that_is_none_of_ours_is_an_error_for_good(payload: dict[str, Any], version: int, code: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Letter.load(payload, version)
    assert refusal.value.code == code
    assert code != "payload" or refusal.value.errors


def test_a_kind_is_defined_once_and_with_known_options() -> None:
    with pytest.raises(TypeError, match="defined twice"):

        class Another(Job, kind="tests.enqueue.letter"):
            pass

    with pytest.raises(TypeError, match="no option 'timelimit'"):

        class Misspelt(Job, kind="tests.enqueue.misspelt", timelimit=3):
            pass

    with pytest.raises(TypeError, match="no queue 'express'"):

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
def test_a_result_is_a_dictionary_of_json_with_a_limit(result: Any, code: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_result(result)
    assert refusal.value.code == code


def test_a_result_within_the_limit_passes(desks: Callable[..., Desk]) -> None:
    most = {"text": "x" * (MAX_RESULT_BYTES - len('{"text": ""}'))}
    assert check_result(most) == most
    assert check_result(None) is None
    desk = desks()
    (job_id,) = desk.enqueue(Chore())
    (run,) = desk.take()
    desk.begin(run)
    run.result = most
    desk.end(run)
    desk.until(job_id, "succeeded")
    wait_until(lambda: desk.ledger.row(job_id).result == most, what="the result")


def test_many_jobs_of_one_call_share_its_options(desk: Desk) -> None:
    rows = desk.ledger.db.transaction(
        enqueue_many, [Chore(number=1), Chore(number=2)], tenant="acme", request_id="r", expires_at=clock.now()
    )
    assert {(row.tenant, row.request_id) for row in map(desk.ledger.row, [row.id for row in rows])} == {("acme", "r")}
