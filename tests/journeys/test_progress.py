"""Progress is seen as it happens, and a reader that lost the line goes on where it was."""

from __future__ import annotations

import time
from itertools import islice

import pytest

from tests.journeys.conftest import Ledger
from tests.support.kinds import Sleep
from tests.support.stack import Stack
from tests.unit.api.streams.following import Received, follow

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(120),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),  # events do not depend on the database
]


def _in_order(events: list[Received]) -> None:
    """No progress twice, and no number that goes back; a snapshot has the number of what came before it."""
    ids = [event.id for event in events]
    assert ids == sorted(ids)
    event_ids = [event.id for event in events if event.name == "progress"]
    assert len(event_ids) == len(set(event_ids))


def test_reconnected_stream_misses_no_event(stack: Stack, ledger: Ledger) -> None:
    """The reader is cut off twice and misses an event or two: ids continue, none comes twice, no stream restarts."""
    stack.start()
    job_id = ledger.enqueue(Sleep(seconds=3, steps=20))
    received = []
    with follow(stack.client, job_id) as events:
        received += list(islice(events, 6))
    for pause_s in (0.0, 0.6):
        time.sleep(pause_s)
        with follow(stack.client, job_id, **{"Last-Event-ID": str(received[-1].id)}) as events:
            received += list(islice(events, 5))
    with follow(stack.client, job_id, **{"Last-Event-ID": str(received[-1].id)}) as events:
        received += list(events)

    _in_order(received)
    assert not any(event.data.get("reset") for event in received)
    done = [event.data["done"] for event in received if event.name == "progress"]
    assert done == sorted(done)
    assert len(set(done)) > 10, "seen while it went on, not at its end"
    assert (received[-1].name, received[-1].data["state"]) == ("end", "succeeded")


def test_a_client_follows_through_a_restart_of_the_api(stack: Stack, ledger: Ledger) -> None:
    """The api is killed while it streams; the next one goes on from the last number, and the job never noticed."""
    stack.start()
    job_id = ledger.enqueue(Sleep(seconds=8, steps=80))
    assert stack.api is not None
    with follow(stack.client, job_id) as events:
        received = list(islice(events, 6))
        stack.api.kill()
    stack.api.start()
    stack.wait_for_api()
    assert ledger.state(job_id) == "running", "the job ended before the api was back"
    with follow(stack.client, job_id, **{"Last-Event-ID": str(received[-1].id)}) as events:
        received += list(events)
    _in_order(received)
    assert (received[-1].name, received[-1].data["state"]) == ("end", "succeeded")
    assert ledger.outcomes(job_id) == ["succeeded"]
