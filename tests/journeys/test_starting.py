"""Many who ask for the same: fifty at once are one job, and a storm of debounced starts ends with its last payload."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys.conftest import Ledger
from tests.support.stack import Stack
from tests.support.waiting import wait_until
from tests.unit.jobs.ledger.unique_kinds import at_once

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]

THREADS, ROUNDS = 8, 25


def test_fifty_starts_are_one_job_and_a_storm_ends_with_its_last_payload(
    stack: Stack, ledger: Ledger, tmp_path: Path
) -> None:
    stack.start(workers=2)
    _fifty_at_once(stack, ledger, tmp_path / "single")
    _storm(stack, ledger, tmp_path / "noted")


def _fifty_at_once(stack: Stack, ledger: Ledger, path: Path) -> None:
    body = {"kind": "tests.single", "payload": {"path": str(path)}}
    answers = at_once(50, lambda number: stack.post("/api/jobs", body))
    assert {answer.status_code for answer in answers} == {202}
    (job_id,) = {answer.json()["id"] for answer in answers}
    Path(f"{path}.go").touch()
    assert ledger.wait(job_id).state == "succeeded"
    assert path.read_text() == "ran\n"


def _storm(stack: Stack, ledger: Ledger, path: Path) -> None:
    def ask(number: int) -> str:
        body = {"kind": "tests.noted", "payload": {"path": str(path), "number": number}}
        answer = stack.post("/api/jobs", body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def storm(thread: int) -> set[str]:
        return {ask(thread * ROUNDS + number) for number in range(ROUNDS)}

    ids = set[str]().union(*at_once(THREADS, storm))
    last = THREADS * ROUNDS
    ids.add(ask(last))
    for job_id in ids:
        assert ledger.wait(job_id, timeout_s=40).state == "succeeded"
    wait_until(lambda: path.read_text().endswith(f"end {last}\n"), what="the last payload to be run")
    lines = path.read_text().splitlines()
    begun = [line.split()[1] for line in lines if line.startswith("begin")]
    # Each run ends before the next begins: never two alive.
    assert lines == [f"{word} {number}" for number in begun for word in ("begin", "end")]
    assert len(begun) < last / 4
    assert begun[-1] == str(last)
