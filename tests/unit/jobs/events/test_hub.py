"""First events of a subscriber, and events that it does not read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.jobs.events.hub import JobTopic
from app.jobs.events.snapshot import JobSnapshot, StreamEvent, opening_events
from app.jobs.events.subscribers import MAX_WAITING_EVENTS, JobSubscriber
from app.jobs.events.subscription import StreamTail
from tests.support.stream_events import JOB, event


def tail(*events: StreamEvent) -> StreamTail:
    return StreamTail([event.text for event in events], events[-1].text if events else None)


def snapshot(state: str = "running", seq: int = 0, tries: int = 0) -> JobSnapshot:
    return JobSnapshot(JOB, "default", state, tries, 4, {"seq": seq, "percent": seq} if seq else None, None)


def pairs(events: list[StreamEvent]) -> list[tuple[int, str]]:
    return [(event.seq, event.name) for event in events]


class Reader(JobSubscriber):
    """Reads when the test says so."""

    __slots__ = ("woken",)

    def __init__(self) -> None:
        super().__init__(None, JOB)  # type: ignore[arg-type]
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


@pytest.mark.parametrize(
    ("after", "tail_events", "ledger", "expected"),
    [
        (2, [event(2), event(3), event(4)], snapshot(seq=1), [(3, "progress"), (4, "progress")]),
        (0, [event(1, "state"), event(2)], snapshot(), [(1, "state"), (2, "progress")]),
        (4, [event(4)], snapshot(seq=3), [(4, "state")]),  # nothing new: its state, under the same number
        (3, [], snapshot(seq=3), [(3, "state")]),  # no stream any more, and the ledger knows the number
        (2, [event(2), event(3, "end", "succeeded")], snapshot("succeeded", 2), [(3, "end")]),
        (2, [event(2)], snapshot("succeeded", 2), [(3, "end")]),  # the end's message got lost
        (1, [event(1), event(2, "end", "failed"), event(3, "state", "queued")], snapshot("queued"), [(3, "state")]),
    ],
)
def test_a_resumed_stream_begins_with_the_missed_events_only(
    after: int, tail_events: list[StreamEvent], ledger: JobSnapshot, expected: list[tuple[int, str]]
) -> None:
    assert pairs(opening_events(ledger, tail(*tail_events), after, True)) == expected


@pytest.mark.parametrize(
    ("after", "tail_events"),
    [(2, [event(4), event(5)]), (9, []), (None, [event(1)]), (9, None)],
    ids=["a gap", "nothing kept", "no number", "no stream"],
)
def test_an_unknown_number_restarts_with_a_snapshot(after: int | None, tail_events: list[StreamEvent] | None) -> None:
    first = opening_events(snapshot(seq=3), None if tail_events is None else tail(*tail_events), after, True)[0]
    assert (first.seq, first.name) == (3, "state")
    assert '"reset": true' in first.text


def test_a_subscriber_that_has_the_end_gets_nothing() -> None:
    end = event(3, "end", "succeeded")
    assert opening_events(snapshot("succeeded", 2), tail(event(2), end), 3, True) == []
    assert opening_events(snapshot("succeeded", 2), tail(), 3, True) == []
    assert pairs(opening_events(snapshot("succeeded", 2), tail(event(2), end), None, False)) == [(3, "end")]


def test_an_event_of_an_older_attempt_does_not_follow_a_newer_snapshot() -> None:
    first = opening_events(snapshot("retrying", 2, tries=1), tail(event(5, attempt=1)), None, False)
    assert pairs(first) == [(2, "state")]


def test_progress_is_replaced_while_it_waits_and_states_are_kept() -> None:
    reader = Reader()
    reader.begin([event(0, "state", "queued")])
    for coming in (event(1, "state"), event(2), event(3), event(4, "state", "retrying"), event(5), event(6)):
        reader.offer(coming)
    assert pairs(reader.take()) == [(0, "state"), (1, "state"), (3, "progress"), (4, "state"), (6, "progress")]
    assert reader.take() == []


def test_events_that_came_during_the_opening_follow_it_once() -> None:
    reader = Reader()
    for coming in (event(2), event(3), event(4)):
        reader.offer(coming)
    assert reader.woken == 0
    reader.begin([event(1, "state"), event(3)])
    assert pairs(reader.take()) == [(1, "state"), (3, "progress"), (4, "progress")]


def test_a_client_that_does_not_read_overflows() -> None:
    reader = Reader()
    reader.begin([event(0, "state", "queued")])
    for seq in range(1, 2 * MAX_WAITING_EVENTS):
        reader.offer(event(seq, "state", "retrying" if seq % 2 else "queued", seq))
    assert reader.overflowed
    assert len(reader.take()) <= MAX_WAITING_EVENTS


@pytest.mark.parametrize(
    ("last", "ledger", "blind", "expected"),
    [
        (event(5), snapshot(seq=3), False, []),  # the row lags behind the events
        (event(5), snapshot(seq=7), False, [(7, "progress")]),
        (event(5), snapshot("succeeded", 5), False, [(6, "end")]),
        (event(5), snapshot("queued", 5), False, [(6, "state")]),
        (event(5), snapshot("retrying", 5, tries=1), False, [(6, "state")]),
        (event(5), snapshot(seq=3), True, []),
    ],
)
def test_the_ledger_replaces_lost_messages(
    last: StreamEvent, ledger: JobSnapshot, blind: bool, expected: list[tuple[int, str]]
) -> None:
    topic, reader = JobTopic(), Reader()
    topic.subscribers.add(reader)
    reader.begin([last])
    reader.take()
    topic.last = last
    topic.compare(ledger, blind=blind)
    topic.compare(ledger, blind=blind)
    assert pairs(reader.take()) == expected


def test_without_redis_progress_comes_from_rows_and_never_falls() -> None:
    topic, reader = JobTopic(), Reader()
    topic.subscribers.add(reader)
    topic.last = event(9)
    reader.begin([topic.last])
    reader.take()

    def row(percent: float) -> JobSnapshot:
        return JobSnapshot(JOB, "default", "running", 0, 4, {"seq": 5, "percent": percent}, None)

    for percent in (10, 30, 20):
        topic.compare(row(percent), blind=True)
    assert [event.text for event in reader.take() if '"percent": 30' not in event.text] == []


def test_a_state_that_progress_has_shown_is_skipped() -> None:
    topic, reader = JobTopic(), Reader()
    topic.subscribers.add(reader)
    topic.last = event(0, "state", "queued")
    reader.begin([topic.last])
    for coming in (event(1), event(2, "state"), event(3), event(4, "state", "queued"), event(5, "state")):
        topic.take(coming)
    assert pairs(reader.take()) == [(0, "state"), (3, "progress"), (4, "state"), (5, "state")]


def test_numbers_that_restart_do_not_hide_a_state() -> None:
    """Redis was flushed, and the ledger holds no progress."""
    last = event(40)
    assert not event(1).is_news_after(last)
    assert event(1, "end", "succeeded").is_news_after(last)
    assert event(1, "state", "retrying", 2).is_news_after(last)


@pytest.mark.parametrize("text", ["", "{", "7", "null", "[]", '"x"', "{}", '{"seq": null}', '{"seq": "x", "event": 1}'])
def test_other_text_is_not_parsed_as_an_event(text: str) -> None:
    assert StreamEvent.parse(text) is None


def test_the_data_of_a_snapshot_has_every_field() -> None:
    data: dict[str, Any] = json.loads(snapshot(seq=3).event(3).text)
    assert data.keys() == {
        "seq", "event", "job_id", "attempt", "state", "percent", "stage", "done", "total", "unit", "message", "at",
    }  # fmt: skip
