"""Kinds of job about search."""

from __future__ import annotations

from app.jobs.definition import Debounce, Job


class FollowIndex(
    Job,
    kind="search.follow",
    time_limit_s=6 * 3600,
    priority=50,
    running_cap=1,
    unique=Debounce(0.0, 0.0),
    stages={"build": 90, "follow": 10},
):
    """Bring the index outside of SQL up to date; asked for while it runs, it runs once more."""


class VerifyIndex(
    Job,
    kind="search.verify",
    queue="bulk",
    time_limit_s=6 * 3600,
    retry_delays=(5.0, 15.0, 60.0, 300.0),
    open_to="operator",
    unique_key=lambda job: "verify",
):
    """Prove that rows, vectors and postings are the same; `repair` mends what is not."""

    repair: bool = False
