"""For any order of starts, ends and waits, a key has one open job and no debounced payload is lost."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.core import clock
from app.core.db import database
from app.jobs.ledger import commands
from app.jobs.ledger.claims import Claim
from app.jobs.models import JobRow
from app.jobs.states import OPEN, State
from tests.support.databases import SettingsEnv
from tests.unit.jobs.conftest import Databases
from tests.unit.jobs.ledger.unique_kinds import Once, Seldom, Settled, Starting

KINDS: dict[str, type[Once] | type[Seldom] | type[Settled]] = {kind.kind: kind for kind in (Once, Seldom, Settled)}
ENDS: tuple[State, ...] = ("succeeded", "failed", "retrying", "queued")
# Weighted by repetition: starts during a run matter most.
STEPS = ("start", "start", "start_running", "start_running", "claim", "claim", "end", "end", "wait", "cancel")
Steps = st.lists(
    st.tuples(st.sampled_from(STEPS), st.sampled_from(sorted(KINDS)), st.sampled_from("ab"), st.integers(0, 59)),
    min_size=30,
    max_size=60,
)


class Simulation:
    """The starts and runs of one example, and their expected results."""

    def __init__(self) -> None:
        self.starting = Starting()
        self.number = 0
        self.now_s = 0.0
        self.claims: list[Claim] = []
        self.expected: dict[str, int] = {}  # by key, the debounced payload not yet run
        self.throttled: dict[str, float] = {}  # by key, the time of the last start
        self.starts_during_a_run = 0

    def rows(self) -> list[JobRow]:
        query = sa.select(JobRow).where(JobRow.state.in_(OPEN)).order_by(JobRow.id)
        return database().read(lambda session: list(session.scalars(query)))

    def start(self, kind: str, about: str, which: int) -> None:
        self.number += 1
        before = [row for row in self.rows() if (row.kind, row.unique_key) == (kind, about)]
        row = self.starting.start(KINDS[kind](about=about, number=self.number))
        assert {open_row.id for open_row in before} <= {row.id}, "an open job is returned"
        self.starts_during_a_run += any(open_row.state == "running" for open_row in before)
        if kind == Settled.kind:
            self.expected[about] = self.number
        if kind == Seldom.kind and row.is_new:
            assert self.now_s - self.throttled.get(about, -1000) > 59, "started twice within its throttle"
            self.throttled[about] = self.now_s

    def start_running(self, kind: str, about: str, which: int) -> None:
        if self.claims:
            claim = self.claims[which % len(self.claims)]
            self.start(claim.kind, claim.payload["about"], which)

    def wait(self, kind: str, about: str, which: int) -> None:
        self.pass_time(which + 2)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.starting.advance(seconds)
        self.starting.make_due()

    def claim(self, kind: str, about: str, which: int) -> None:
        if which % 2:
            self.pass_time(11)
        queued = [row.id for row in self.rows() if row.state == "queued"]
        if queued:
            self.claims.append(self.starting.claim(queued[which % len(queued)]))
            self.note_run(self.claims[-1])

    def note_run(self, claim: Claim) -> None:
        if claim.kind == Settled.kind and self.expected.get(claim.payload["about"]) == claim.payload["number"]:
            del self.expected[claim.payload["about"]]

    def end(self, kind: str, about: str, which: int) -> None:
        if self.claims:
            claim, state = self.claims.pop(which % len(self.claims)), ENDS[which % len(ENDS)]
            due_at = clock.now() + timedelta(seconds=5) if state == "retrying" else None
            assert self.starting.end(claim, state, due_at=due_at) is not None

    def cancel(self, kind: str, about: str, which: int) -> None:
        for row in self.rows():
            if (row.kind, row.unique_key) == (kind, about) and row.state != "running":
                database().transaction(commands.cancel, "default", row.id)
                if kind == Settled.kind:
                    self.expected.pop(about, None)

    def check(self) -> None:
        keys = Counter((row.kind, row.unique_key) for row in self.rows())
        assert set(keys.values()) <= {1}, keys

    def finish(self) -> None:
        """Run every job to its end."""
        for claim in self.claims:
            self.starting.end(claim)
        for _ in range(3):
            self.pass_time(120)
            for claim in self.starting.run_due():
                self.note_run(claim)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 12), ("postgresql", 5)])
def test_any_order_of_starts_keeps_one_open_job_and_every_payload(
    kind: str, examples: int, ledger_databases: Databases, redis_url: str, settings_env: SettingsEnv
) -> None:
    settings_env(database_url=ledger_databases.url(kind), redis_url=redis_url)
    simulations: list[Simulation] = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(steps=Steps)
    def run(steps: list[tuple[str, str, str, int]]) -> None:
        ledger_databases.empty(kind)
        clock.shift(timedelta(0))
        simulations.append(Simulation())
        for step, definition, about, which in steps:
            getattr(simulations[-1], step)(definition, about, which)
            simulations[-1].check()
        simulations[-1].finish()
        assert simulations[-1].expected == {}, "a debounced payload was lost"

    try:
        run()
    finally:
        clock.shift(timedelta(0))
    assert sum(simulation.starts_during_a_run for simulation in simulations) >= examples, "too few starts during a run"
