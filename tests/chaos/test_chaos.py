"""A few rounds of `make chaos`, whose plan of faults is fixed by the seed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.services import find_program, missing
from tests.support.stack import REPOSITORY

ROUNDS = 9
# Seeds whose plans have the worst in them: killed children and masters, a long freeze, an emptied Redis.
SEEDS = {"sqlite": 2383, "postgresql": 703}


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_nothing_is_lost_or_doubled(database: str) -> None:
    """After nine faults every job has ended as it should, every effect is written once, and no process lives on."""
    for program in ("redis-server", *(("postgres",) if database == "postgresql" else ())):
        if find_program(program) is None:
            missing(program, "apt-get install redis-server postgresql")
    command = [sys.executable, "-m", "tests.chaos", "--rounds", str(ROUNDS), "--database", database]
    command += ["--seed", str(SEEDS[database]), "--outage-every", "0"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=220, check=False)
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
