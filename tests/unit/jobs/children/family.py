"""Helpers of the tests of children: a parent and its children, run step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.core.db import database
from app.core.errors import Cancelled, InvalidInput
from app.jobs.children import children
from app.jobs.children.children import ALL, Rule, WaitForChildren
from app.jobs.definition import Job
from app.jobs.models import JobRow
from app.jobs.relay.relay import Relay
from app.jobs.worker.run import Run
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import Chore, WorkerHarness


class Parent(Job, kind="tests.parent"):
    """Starts chores from the test."""


class StagedParent(Job, kind="tests.staged_parent", stages={"list": 1, "children": 8, "merge": 1}):
    """Its children move the progress from 10 to 90."""


class Keyed(Job, kind="tests.keyed_child", unique_key=lambda job: str(job.number)):
    number: int


ended: list[str] = []


class EndRecorder(Job, kind="tests.end_recorder", on_end=lambda session, row: ended.append(row.id)):
    """Records its end in `ended`."""


class FamilyHarness(WorkerHarness):
    """Keeps runs claimed beyond the requested count for the next `take`."""

    def __init__(self, *more: str) -> None:
        super().__init__([Chore.kind, Parent.kind, StagedParent.kind, Keyed.kind, EndRecorder.kind, *more])
        self.spare: list[Run] = []

    def take(self, count: int = 1) -> list[Run]:
        def has_enough() -> bool:
            if len(self.spare) < count:
                self.spare += self.process.fetcher.fetch()
            if not self.spare:
                Relay().tick()  # only a relay admits a new job while others wait
            return len(self.spare) >= count

        wait_until(has_enough, what=f"{count} runs; there are {self.spare}")
        runs, self.spare = self.spare[:count], self.spare[count:]
        return runs

    def settle(self, parent_id: str, *states: str) -> JobRow:
        """Tick a relay until the parent is in one of the states; return its row."""
        relay = Relay()

        def is_settled() -> bool:
            relay.tick()
            return self.state(parent_id) in states

        wait_until(is_settled, what=f"the parent to be {states}; it is {self.state(parent_id)}")
        return self.ledger.row(parent_id)

    def take_settled(self, parent_id: str) -> Run:
        """Return the next run of a parent whose children have ended."""
        self.settle(parent_id, "queued")
        (run,) = self.take()
        assert run.claim.id == parent_id
        return run


class Family:
    """A running parent that has started its children; `children` are their ids in order."""

    def __init__(self, harness: FamilyHarness, jobs: Sequence[Job], parent: Job | None = None) -> None:
        self.harness = harness
        (self.id,) = harness.enqueue(parent or Parent())
        (self.run,) = harness.take()
        harness.begin(self.run)
        self.jobs = jobs
        self.start()

    def start(self) -> int:
        return database().transaction(children.start, self.run.claim, self.jobs)

    @property
    def children(self) -> list[str]:
        return [child.id for child in database().read(children.results_page, self.id)]

    def wait(self, rule: Rule = ALL, **more: Any) -> None:
        self.harness.end(self.run, WaitForChildren(rule, **more))
        self.harness.until(self.id, "waiting")

    def end(self, count: int, error: BaseException | None = None) -> list[str]:
        """End `count` children and return their ids."""
        runs = self.harness.take(count)
        for run in runs:
            self.harness.begin(run)
            self.harness.end(run, error)
        for run in runs:
            self.harness.until(run.claim.id, "succeeded", "failed", "cancelled", "retrying")
        return [run.claim.id for run in runs]

    def stop_running(self) -> None:
        """End all claimed runs as cancelled; each must have a cancel request."""
        for run in self.harness.process.runs.all():
            assert self.harness.ledger.row(run.claim.id).cancel_requested_at is not None
            self.harness.end(run, Cancelled("stop"))
            self.harness.until(run.claim.id, "cancelled")
        self.harness.spare.clear()

    def counts(self) -> tuple[int, int, int]:
        """Return the numbers of children, of open ones and of failed ones."""
        row = self.harness.ledger.row(self.id)
        return row.children, row.open_children, row.failed_children

    def states(self) -> list[str]:
        return [child.state for child in database().read(children.results_page, self.id)]

    def until(self, *states: str) -> JobRow:
        """Tick a relay until the parent is in one of the states; return its row."""
        return self.harness.settle(self.id, *states)

    def take_parent(self) -> Run:
        """Take and begin the next run of the parent."""
        self.run = self.harness.take_settled(self.id)
        self.harness.begin(self.run)
        return self.run


FAILED = InvalidInput("never")
