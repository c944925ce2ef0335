"""A parent and its children, worked by hand: what tests of families start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.core.db import database
from app.core.errors import Cancelled, InvalidInput
from app.jobs.children import children as families
from app.jobs.children.children import ALL, Rule, WaitForChildren
from app.jobs.definition import Job
from app.jobs.models import JobRow
from app.jobs.relay.relay import Relay
from app.jobs.worker.run import Run
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import Chore
from tests.unit.jobs.conftest import Desk as OneDesk


class Parent(Job, kind="tests.parent"):
    """Starts chores; the tests say how."""


class StagedParent(Job, kind="tests.staged_parent", stages={"list": 1, "children": 8, "merge": 1}):
    """Its children's share of the bar is from 10 to 90."""


class Keyed(Job, kind="tests.keyed_child", unique_key=lambda job: str(job.number)):
    number: int


ended: list[str] = []


class Told(Job, kind="tests.told_child", on_end=lambda session, row: ended.append(row.id)):
    """Says when it ended."""


class Desk(OneDesk):
    """What it claimed beside what was asked for, it gives at the next time."""

    def __init__(self, *more: str) -> None:
        super().__init__([Chore.kind, Parent.kind, StagedParent.kind, Keyed.kind, Told.kind, *more])
        self.spare: list[Run] = []

    def take(self, count: int = 1) -> list[Run]:
        def taken() -> bool:
            if len(self.spare) < count:
                self.spare += self.process.fetcher.fetch()
            if not self.spare:
                Relay().tick()  # while others wait, a new job is admitted by a relay
            return len(self.spare) >= count

        wait_until(taken, what=f"{count} runs; there are {self.spare}")
        runs, self.spare = self.spare[:count], self.spare[count:]
        return runs

    def settle(self, parent_id: str, *states: str) -> JobRow:
        """The parent's row once a relay has brought it there."""
        relay = Relay()

        def there() -> bool:
            relay.tick()
            return self.state(parent_id) in states

        wait_until(there, what=f"the parent to be {states}; it is {self.state(parent_id)}")
        return self.ledger.row(parent_id)

    def take_settled(self, parent_id: str) -> Run:
        """The next run of a parent whose children have ended."""
        self.settle(parent_id, "queued")
        (run,) = self.take()
        assert run.claim.id == parent_id
        return run


class Family:
    """A parent that has started its children and is still running; `children` are their ids in their order."""

    def __init__(self, desk: Desk, jobs: Sequence[Job], parent: Job | None = None) -> None:
        self.desk = desk
        (self.id,) = desk.enqueue(parent or Parent())
        (self.run,) = desk.take()
        desk.begin(self.run)
        self.jobs = jobs
        self.start()

    def start(self) -> int:
        return database().transaction(families.start, self.run.claim, self.jobs)

    @property
    def children(self) -> list[str]:
        return [child.id for child in database().read(families.results_page, self.id)]

    def wait(self, rule: Rule = ALL, **more: Any) -> None:
        self.desk.end(self.run, WaitForChildren(rule, **more))
        self.desk.until(self.id, "waiting")

    def end(self, count: int, error: BaseException | None = None) -> list[str]:
        """End so many children; their ids."""
        runs = self.desk.take(count)
        for run in runs:
            self.desk.begin(run)
            self.desk.end(run, error)
        for run in runs:
            self.desk.until(run.claim.id, "succeeded", "failed", "cancelled", "retrying")
        return [run.claim.id for run in runs]

    def stop_running(self) -> None:
        """What is claimed ends as cancelled, as it was asked to."""
        for run in self.desk.process.runs.all():
            assert self.desk.ledger.row(run.claim.id).cancel_requested_at is not None
            self.desk.end(run, Cancelled("stop"))
            self.desk.until(run.claim.id, "cancelled")
        self.desk.spare.clear()

    def counts(self) -> tuple[int, int, int]:
        """Children, open ones, failed ones."""
        row = self.desk.ledger.row(self.id)
        return row.children, row.open_children, row.failed_children

    def states(self) -> list[str]:
        return [child.state for child in database().read(families.results_page, self.id)]

    def until(self, *states: str) -> JobRow:
        """The parent's row once a relay has brought it there."""
        return self.desk.settle(self.id, *states)

    def take_parent(self) -> Run:
        """The parent's next run."""
        self.run = self.desk.take_settled(self.id)
        self.desk.begin(self.run)
        return self.run


FAILED = InvalidInput("never")
