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
    """Update the index outside of SQL; a request during a run starts one more run."""


class ReanalyzeDocuments(
    Job,
    kind="search.reanalyze",
    queue="bulk",
    time_limit_s=86_400,
    retry_delays=(5.0, 60.0, 300.0),
    open_to="operator",
    unique_key=lambda job: "reanalyze",
):
    """Make the words of documents again that another version of the program analysed."""


class BuildGeneration(
    Job, kind="search.build_generation", queue="bulk", time_limit_s=7 * 86_400, retry_delays=(5.0, 60.0, 300.0),
    open_to="operator", unique_key=lambda job: "generation", stages={"embed": 90, "build": 5, "follow": 5},
):  # fmt: skip
    """Make the vectors of MILLRACE_NEXT_EMBEDDER for all chunks, next to the searched ones."""


class CompareGenerations(Job, kind="search.compare_generations", queue="bulk", time_limit_s=3600, open_to="operator"):
    """Compare the answers of two generations; without queries, titles of documents are used."""

    first: str
    second: str
    queries: tuple[str, ...] = ()
    limit: int = 10


class SwapGeneration(
    Job, kind="search.swap_generation", queue="default", time_limit_s=86_400, retry_delays=(2.0, 30.0, 300.0),
    open_to="operator", running_cap=1,
    unique_key=lambda job: job.name or "-", stages={"embed": 90, "build": 5, "follow": 5},
):  # fmt: skip
    """Search this generation from now on and keep the previous one; without a name, go back to the previous one."""

    name: str | None = None


class DropGeneration(
    Job, kind="search.drop_generation", queue="bulk", time_limit_s=86_400, retry_delays=(5.0, 60.0),
    open_to="operator", unique_key=lambda job: job.name,
):  # fmt: skip
    """Delete the vectors of a generation that is not searched."""

    name: str


class VerifyIndex(
    Job,
    kind="search.verify",
    queue="bulk",
    time_limit_s=6 * 3600,
    retry_delays=(5.0, 15.0, 60.0, 300.0),
    open_to="operator",
    unique_key=lambda job: "verify",
):
    """Verify that rows, vectors and postings agree; `repair` writes again what does not."""

    repair: bool = False
