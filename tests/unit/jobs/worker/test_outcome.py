"""One table: which error leads where, counted or not, and after how many seconds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.core.durations import FALLBACK_RETRY_S
from app.core.errors import (
    AppError,
    Cancelled,
    Conflict,
    Interrupted,
    InvalidInput,
    LimitReached,
    NotAllowed,
    NotFound,
    Rejected,
    SandboxCrashed,
    SandboxOutOfMemory,
    Snooze,
    Stale,
    TimeLimitExceeded,
    Unavailable,
)
from app.core.ids import uuid7
from app.jobs.definition import Job
from app.jobs.sandbox.protocol import SandboxFailed
from app.jobs.worker.outcome import JITTER, MAX_MESSAGE_CHARS, MAX_TRACEBACK_CHARS, due_after, judge
from tests.support.claims import claim_of
from tests.support.databases import SettingsEnv


class Hasty(Job, kind="tests.outcome.hasty", retry_delays=(5.0, 50.0)):
    """Has its own delays."""


def raised(error: BaseException) -> BaseException:
    """The error with a traceback."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001
        return caught


TABLE: list[tuple[BaseException, str | None, int, bool]] = [
    # error, state, what it counts, with traceback
    (InvalidInput("x"), "failed", 1, False),
    (NotFound("x"), "failed", 1, False),
    (Conflict("x"), "failed", 1, False),
    (NotAllowed("x"), "failed", 1, False),
    (Rejected("x"), "failed", 1, False),
    (SandboxOutOfMemory("x"), "failed", 1, False),
    (LimitReached("x", 7), "retrying", 1, False),
    (Unavailable("x"), "retrying", 1, False),
    (TimeLimitExceeded("x"), "retrying", 1, False),
    (SandboxCrashed("x"), "retrying", 1, False),
    (AppError("x"), "retrying", 1, True),
    (ZeroDivisionError("x"), "retrying", 1, True),
    (SystemExit(1), "retrying", 1, True),
    (KeyboardInterrupt(), "retrying", 1, True),
    (Cancelled("x"), "cancelled", 0, False),
    (Interrupted("x"), "queued", 0, False),
    (Stale("x"), None, 0, False),
]


@pytest.mark.parametrize(("error", "state", "counts", "traced"), TABLE, ids=lambda value: type(value).__name__)
def test_every_error_class_has_an_outcome(
    settings_env: SettingsEnv, error: BaseException, state: str | None, counts: int, traced: bool
) -> None:
    verdict = judge(claim_of(tries=1), raised(error))
    assert (verdict.state, verdict.tries) == (state, 1 + counts)
    assert (verdict.traceback is not None) == traced
    assert (verdict.error_type == type(error).__name__) == (state in ("failed", "retrying", "cancelled"))


def test_a_job_that_asks_to_run_later_has_not_tried(settings_env: SettingsEnv) -> None:
    """Not even as its last try, and nothing stands on record as an error."""
    verdict = judge(claim_of(tries=3), raised(Snooze(90.0, "the file is not there yet")))
    assert (verdict.state, verdict.outcome, verdict.tries, verdict.delay_s) == ("retrying", "snoozed", 3, 90.0)
    assert (verdict.error_type, verdict.traceback) == (None, None)


def test_success_clears_all(settings_env: SettingsEnv) -> None:
    verdict = judge(claim_of(tries=2), None)
    assert (verdict.state, verdict.tries, verdict.error_type, verdict.delay_s) == ("succeeded", 2, None, None)


@pytest.mark.parametrize("error", [Unavailable("x"), ZeroDivisionError("x"), LimitReached("x", 1), SandboxCrashed("x")])
def test_the_last_try_fails(settings_env: SettingsEnv, error: Exception) -> None:
    verdict = judge(claim_of(tries=3), error)
    assert (verdict.state, verdict.outcome, verdict.tries, verdict.delay_s) == ("failed", "failed", 4, None)


@pytest.mark.parametrize(("code", "state"), [("invalid_input", "failed"), ("unavailable", "retrying")])
def test_an_error_from_a_sandbox_is_judged_by_its_class(settings_env: SettingsEnv, code: str, state: str) -> None:
    error = SandboxFailed("ParserError", "page 3 is broken", "Traceback in the sandbox", permanent=state == "failed")
    verdict = judge(claim_of(), error)
    assert (verdict.state, verdict.error_type, verdict.error_message) == (state, "ParserError", "page 3 is broken")
    assert verdict.traceback == "Traceback in the sandbox"


def test_delays_come_from_the_settings_with_some_jitter(settings_env: SettingsEnv) -> None:
    settings_env(retry_delays="10, 20,40")
    for tries, delay in ((0, 10.0), (1, 20.0), (2, 40.0), (7, 40.0)):
        seen = [judge(claim_of(tries=tries, max_tries=99), Unavailable("x")).delay_s or 0 for _ in range(50)]
        assert all(delay * (1 - JITTER) <= delay_s <= delay * (1 + JITTER) for delay_s in seen)
        assert len(set(seen)) > 10


def test_delays_of_the_definition_win(settings_env: SettingsEnv) -> None:
    settings_env(retry_delays="1000")
    for tries, delay in ((0, 5.0), (1, 50.0), (2, 50.0)):
        seen = judge(claim_of(Hasty.kind, tries=tries), ZeroDivisionError()).delay_s
        assert seen == pytest.approx(delay, rel=JITTER + 0.01)


@pytest.mark.parametrize("requested_s", [0.0, 1.5, 3600.0])
def test_requested_retry_delay_is_used_exactly(settings_env: SettingsEnv, requested_s: float) -> None:
    assert judge(claim_of(), Unavailable("x", retry_after_s=requested_s)).delay_s == requested_s
    assert judge(claim_of(), LimitReached("x", requested_s)).delay_s == requested_s


@pytest.mark.parametrize(
    ("delay_s", "waits"), [(-5.0, 0), (float("nan"), 0), (float("inf"), 365 * 86400), (1e12, 365 * 86400), (2.0, 2)]
)
def test_delay_is_bounded(delay_s: float, waits: int) -> None:
    assert due_after(delay_s) == timedelta(seconds=waits)


def test_long_texts_are_cut_and_nul_is_left_out(settings_env: SettingsEnv) -> None:
    verdict = judge(claim_of(), raised(ValueError("a\x00b" + "x" * 100_000)))
    assert verdict.error_message is not None
    assert verdict.error_message.startswith("abx")
    assert len(verdict.error_message) <= MAX_MESSAGE_CHARS
    assert len(verdict.traceback or "") <= MAX_TRACEBACK_CHARS
    assert "\x00" not in (verdict.traceback or "")


def test_error_without_a_message_is_shown_by_its_class(settings_env: SettingsEnv) -> None:
    assert judge(claim_of(), raised(KeyboardInterrupt())).error_message == "KeyboardInterrupt"


def test_error_whose_str_raises_is_still_recorded(settings_env: SettingsEnv) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("I will not say")

    verdict = judge(claim_of(), raised(Mute()))
    assert (verdict.state, verdict.error_type) == ("retrying", "Mute")


def test_the_same_fault_with_other_numbers_has_the_same_fingerprint(settings_env: SettingsEnv) -> None:
    first = judge(claim_of(), ValueError(f"row 17 of {uuid7()} has 3 columns"))
    second = judge(claim_of(), ValueError("row 4 of 99ff047c-bbbb-7bbb-8bbb-bbbbbbbbbbbb has 12 columns"))
    other = judge(claim_of(), ValueError("no such column"))
    assert first.fingerprint == second.fingerprint != other.fingerprint


class Wordless(Exception):
    def __str__(self) -> str:
        raise RecursionError


class Asks(Exception):
    def __init__(self, retry_after_s: object) -> None:
        super().__init__("slow down")
        self.retry_after_s = retry_after_s


@pytest.mark.parametrize("requested", ["soon", "5", None, float("nan"), float("inf"), True, [5], timedelta(5)])
def test_invalid_delay_falls_back_to_that_of_the_kind(requested: object) -> None:
    verdict = judge(claim_of(Hasty.kind), raised(Asks(requested)))
    assert (verdict.state, verdict.error_message) == ("retrying", "slow down")
    assert verdict.delay_s == pytest.approx(5.0, rel=JITTER)


@pytest.mark.parametrize(("requested", "delay_s"), [(7, 7.0), (0.5, 0.5), (-3, 0.0)])
def test_a_delay_that_is_a_number_is_taken(requested: float, delay_s: float) -> None:
    assert judge(claim_of(Hasty.kind), raised(Asks(requested))).delay_s == delay_s


@pytest.mark.parametrize("make", [LimitReached, lambda message, after: Snooze(after, message)])
def test_error_classes_refuse_an_invalid_delay(make: object) -> None:
    with pytest.raises(TypeError, match="retry_after_s must be a number of seconds, not 'soon'"):
        make("x", "soon")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            SyntaxError("bad json5", ("f", 1, 1, b"bytes text")),  # type: ignore[arg-type]
            "bad json5 (f, line 1)",
        ),
        (Wordless("x"), "<exception str() failed>"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "y"), "'utf-8' codec can't decode byte 0x78 in position 0: y"),
    ],
)
def test_an_error_that_cannot_be_formatted_ends_the_attempt(error: BaseException, message: str) -> None:
    verdict = judge(claim_of(Hasty.kind), raised(error))
    assert (verdict.state, verdict.tries, verdict.error_type) == ("retrying", 1, type(error).__name__)
    assert verdict.error_message == message
    assert verdict.fingerprint
    assert "in raised" in (verdict.traceback or "")
    last = judge(claim_of(Hasty.kind, tries=2, max_tries=3), raised(error))
    assert (last.state, last.tries) == ("failed", 3)


class Unreadable(Snooze):
    @property
    def retry_after_s(self) -> float:
        raise ZeroDivisionError

    @retry_after_s.setter
    def retry_after_s(self, value: float) -> None: ...


def test_an_error_whose_attributes_raise_ends_the_attempt() -> None:
    verdict = judge(claim_of(Hasty.kind), raised(Unreadable(5)))
    assert (verdict.state, verdict.tries, verdict.delay_s) == ("retrying", 1, FALLBACK_RETRY_S)
    assert verdict.error_message == "Unreadable; reading this error raised ZeroDivisionError"
    assert judge(claim_of(Hasty.kind, tries=2, max_tries=3), Unreadable(5)).state == "failed"
