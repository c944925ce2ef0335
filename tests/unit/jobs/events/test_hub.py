"""What a follower gets first, and what becomes of events that it does not read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.jobs.events.hub import Topic
from app.jobs.events.snapshot import Event, Standing, opening
from app.jobs.events.subscribers import MOST_WAITING, Watcher
from app.jobs.events.subscription import Tail

JOB = "01a20472-8105-7f57-9d0a-6beac39f915f"


def event(seq: int, name: str = "progress", state: str = "running", attempt: int = 1) -> Event:
    return Event({"seq": seq, "event": name, "state": state, "attempt": attempt, "job_id": JOB, "percent": seq})


def tail(*events: Event) -> Tail:
    return Tail([kept.text for kept in events], events[-1].text if events else None)


def standing(state: str = "running", seq: int = 0, tries: int = 0) -> Standing:
    return Standing(JOB, "default", state, tries, 4, {"seq": seq, "percent": seq} if seq else None, None)


def told(events: list[Event]) -> list[tuple[int, str]]:
    return [(found.seq, found.name) for found in events]


class Reader(Watcher):
    """Reads when the test says so."""

    __slots__ = ("woken",)

    def __init__(self) -> None:
        super().__init__(None, JOB)  # type: ignore[arg-type]
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


@pytest.mark.parametrize(
    ("after", "kept", "ledger", "expected"),
    [
        (2, [event(2), event(3), event(4)], standing(seq=1), [(3, "progress"), (4, "progress")]),
        (0, [event(1, "state"), event(2)], standing(), [(1, "state"), (2, "progress")]),
        (4, [event(4)], standing(seq=3), [(4, "state")]),  # nothing new: where it is now, under the same number
        (3, [], standing(seq=3), [(3, "state")]),  # no stream any more, and the ledger knows the number
        (2, [event(2), event(3, "end", "succeeded")], standing("succeeded", 2), [(3, "end")]),
        (2, [event(2)], standing("succeeded", 2), [(3, "end")]),  # the end's message got lost
        (1, [event(1), event(2, "end", "failed"), event(3, "state", "queued")], standing("queued"), [(3, "state")]),
    ],
)
def test_who_resumes_gets_what_was_missed_and_no_more(
    after: int, kept: list[Event], ledger: Standing, expected: list[tuple[int, str]]
) -> None:
    assert told(opening(ledger, tail(*kept), after, True)) == expected


@pytest.mark.parametrize(
    ("after", "kept"),
    [(2, [event(4), event(5)]), (9, []), (None, [event(1)]), (9, None)],
    ids=["a gap", "nothing kept", "no number", "no stream"],
)
def test_an_unknown_number_begins_anew(after: int | None, kept: list[Event] | None) -> None:
    first = opening(standing(seq=3), None if kept is None else tail(*kept), after, True)[0]
    assert (first.seq, first.name) == (3, "state")
    assert '"reset": true' in first.text


def test_who_has_heard_the_end_gets_nothing() -> None:
    end = event(3, "end", "succeeded")
    assert opening(standing("succeeded", 2), tail(event(2), end), 3, True) == []
    assert opening(standing("succeeded", 2), tail(), 3, True) == []
    assert told(opening(standing("succeeded", 2), tail(event(2), end), None, False)) == [(3, "end")]


def test_an_older_attempts_last_word_does_not_follow_a_newer_snapshot() -> None:
    first = opening(standing("retrying", 2, tries=1), tail(event(5, attempt=1)), None, False)
    assert told(first) == [(2, "state")]


def test_progress_is_replaced_while_it_waits_and_states_are_kept() -> None:
    reader = Reader()
    reader.begin([event(0, "state", "queued")])
    for coming in (event(1, "state"), event(2), event(3), event(4, "state", "retrying"), event(5), event(6)):
        reader.offer(coming)
    assert told(reader.take()) == [(0, "state"), (1, "state"), (3, "progress"), (4, "state"), (6, "progress")]
    assert reader.take() == []


def test_what_came_while_the_opening_was_read_follows_it_once() -> None:
    reader = Reader()
    for coming in (event(2), event(3), event(4)):
        reader.offer(coming)
    assert reader.woken == 0
    reader.begin([event(1, "state"), event(3)])
    assert told(reader.take()) == [(1, "state"), (3, "progress"), (4, "progress")]


def test_who_does_not_read_loses_events_and_is_told_so() -> None:
    reader = Reader()
    reader.begin([event(0, "state", "queued")])
    for seq in range(1, 2 * MOST_WAITING):
        reader.offer(event(seq, "state", "retrying" if seq % 2 else "queued", seq))
    assert reader.overflowed
    assert len(reader.take()) <= MOST_WAITING


@pytest.mark.parametrize(
    ("last", "ledger", "blind", "expected"),
    [
        (event(5), standing(seq=3), False, []),  # the row lags behind what was told
        (event(5), standing(seq=7), False, [(7, "progress")]),
        (event(5), standing("succeeded", 5), False, [(6, "end")]),
        (event(5), standing("queued", 5), False, [(6, "state")]),
        (event(5), standing("retrying", 5, tries=1), False, [(6, "state")]),
        (event(5), standing(seq=3), True, []),
    ],
)
def test_the_ledger_tells_what_nobody_told(
    last: Event, ledger: Standing, blind: bool, expected: list[tuple[int, str]]
) -> None:
    topic, reader = Topic(), Reader()
    topic.watchers.add(reader)
    reader.begin([last])
    reader.take()
    topic.last = last
    topic.compare(ledger, blind=blind)
    topic.compare(ledger, blind=blind)
    assert told(reader.take()) == expected


def test_without_redis_a_bar_moves_by_rows_and_never_back() -> None:
    topic, reader = Topic(), Reader()
    topic.watchers.add(reader)
    topic.last = event(9)
    reader.begin([topic.last])
    reader.take()

    def row(percent: float) -> Standing:
        return Standing(JOB, "default", "running", 0, 4, {"seq": 5, "percent": percent}, None)

    for percent in (10, 30, 20):
        topic.compare(row(percent), blind=True)
    assert [found.text for found in reader.take() if '"percent": 30' not in found.text] == []


def test_a_state_that_progress_has_told_already_is_passed_over() -> None:
    topic, reader = Topic(), Reader()
    topic.watchers.add(reader)
    topic.last = event(0, "state", "queued")
    reader.begin([topic.last])
    for coming in (event(1), event(2, "state"), event(3), event(4, "state", "queued"), event(5, "state")):
        topic.take(coming)
    assert told(reader.take()) == [(0, "state"), (3, "progress"), (4, "state"), (5, "state")]


def test_numbers_that_begin_anew_do_not_hide_a_state() -> None:
    """After a flush of Redis without progress in the ledger."""
    last = event(40)
    assert not event(1).is_news_after(last)
    assert event(1, "end", "succeeded").is_news_after(last)
    assert event(1, "state", "retrying", 2).is_news_after(last)


@pytest.mark.parametrize("text", ["", "{", "7", "null", "[]", '"x"', "{}", '{"seq": null}', '{"seq": "x", "event": 1}'])
def test_what_is_no_event_is_none(text: str) -> None:
    assert Event.parse(text) is None


def test_the_data_of_a_snapshot_has_every_field() -> None:
    data: dict[str, Any] = json.loads(standing(seq=3).event(3).text)
    assert data.keys() == {
        "seq", "event", "job_id", "attempt", "state", "percent", "stage", "done", "total", "unit", "message", "at",
    }  # fmt: skip
