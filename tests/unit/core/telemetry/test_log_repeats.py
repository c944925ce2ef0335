"""Lines about a service that is away: each change at once, repetitions once a minute with their number."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from app.core.telemetry.log_repeats import INTERVAL_S, MAX_KNOWN_LINES, Repeats


class Times:
    """A monotonic clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def times() -> Times:
    return Times()


def logged(repeats: Repeats, **line: Any) -> dict[str, Any] | None:
    """Return the line as it is logged, None for a dropped one."""
    try:
        return dict(repeats(None, "warning", {"event": "intake_waits", **line}))
    except structlog.DropEvent:
        return None


def test_a_repeated_line_is_logged_once_a_minute_with_its_number(times: Times) -> None:
    repeats = Repeats(times)
    assert logged(repeats, reason="refused") == {"event": "intake_waits", "reason": "refused"}
    for _ in range(200):
        times.now += 0.25
        assert logged(repeats, reason="refused") is None
    times.now += INTERVAL_S
    assert logged(repeats, reason="refused") == {"event": "intake_waits", "reason": "refused", "repeated": 200}
    assert logged(repeats, reason="refused") is None


def test_a_new_reason_is_logged_at_once(times: Times) -> None:
    repeats = Repeats(times)
    assert logged(repeats, reason="refused")
    assert logged(repeats, reason="read only replica")
    assert logged(repeats, reason="refused") is None


def test_counts_may_differ_and_objects_are_each_logged(times: Times) -> None:
    repeats = Repeats(times)
    assert logged(repeats, reason="full", ends=3)
    assert logged(repeats, reason="full", ends=4) is None
    for number in range(3):
        assert logged(repeats, reason="full", job_id=str(number))
        assert logged(repeats, reason="full", job_id=str(number))
        assert logged(repeats)  # a line without a reason


def test_a_fault_that_returns_after_its_end_is_logged_at_once(times: Times) -> None:
    repeats = Repeats(times)
    assert logged(repeats, reason="refused")
    repeats.forget("intake_waits")
    assert logged(repeats, reason="refused")


def test_the_same_exception_is_a_repetition(times: Times) -> None:
    repeats = Repeats(times)
    assert logged(repeats, exc_info=ValueError("x"))
    assert logged(repeats, exc_info=ValueError("x")) is None
    assert logged(repeats, exc_info=ValueError("y"))


def test_the_memory_of_lines_is_bounded(times: Times) -> None:
    repeats = Repeats(times)
    for number in range(3 * MAX_KNOWN_LINES):
        assert logged(repeats, reason=str(number))
        assert len(repeats._known) <= MAX_KNOWN_LINES
