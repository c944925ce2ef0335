"""The states of a job and every move between them; no other exists, the database refuses it."""

from __future__ import annotations

from typing import Literal

State = Literal["scheduled", "queued", "running", "waiting", "retrying", "succeeded", "failed", "cancelled"]

STATES: tuple[State, ...] = (
    "scheduled",
    "queued",
    "running",
    "waiting",
    "retrying",
    "succeeded",
    "failed",
    "cancelled",
)
ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled")
OPEN: tuple[State, ...] = ("scheduled", "queued", "running", "waiting", "retrying")
# A cancel ends these at once; a running job is asked.
NOT_STARTED: tuple[State, ...] = ("scheduled", "queued", "retrying", "waiting")

MOVES: frozenset[tuple[State, State]] = frozenset(
    {
        ("scheduled", "queued"),  # due
        ("retrying", "queued"),
        ("queued", "running"),  # claimed
        ("queued", "failed"),  # payload not valid any more, expired
        ("running", "succeeded"),  # finished; the outcome table decides
        ("running", "failed"),
        ("running", "cancelled"),
        ("running", "retrying"),
        ("running", "queued"),  # handed back, or its worker died
        ("running", "waiting"),  # a parent whose children are open
        ("waiting", "queued"),  # the family's rule
        ("waiting", "failed"),
        ("waiting", "cancelled"),
        ("scheduled", "cancelled"),  # cancel
        ("queued", "cancelled"),
        ("retrying", "cancelled"),
        ("failed", "queued"),  # a person's retry
        ("cancelled", "queued"),
    }
)

# After so many crashes a job is claimed alone in its process; one more while alone fails it as poison.
CRASHES_BEFORE_ALONE = 2

Outcome = Literal["succeeded", "failed", "cancelled", "retrying", "snoozed", "handed_back", "died", "waiting"]

# The fields of a job's progress that events and the API show.
PROGRESS_FIELDS = ("percent", "stage", "done", "total", "unit", "message")


def attempt_number(state: str, tries: int, max_tries: int) -> int:
    """Return the number of the current or next try, from 1; for a failed job, of its last one."""
    return max(1, min(tries if state == "failed" else tries + 1, max_tries))
