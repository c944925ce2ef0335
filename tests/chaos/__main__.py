"""`python -m tests.chaos --rounds 500 --database both`: hurt the system at random and count what it loses.

A round is one fault and a second or so of going on; every twenty rounds all must come to rest with every job done and
every effect written once. Exit code 1 where something was lost, doubled or left over.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import pytest

from app.core import clock
from tests.chaos import faults, report, stock, verdict
from tests.chaos.faults import Fault
from tests.chaos.load import Load
from tests.chaos.report import Report
from tests.chaos.system import System

ROUNDS_TO_CHECK = 20


def main() -> int:
    options = _options()
    for name in [name for name in os.environ if name.startswith("MILLRACE_") and "_TEST_" not in name]:
        del os.environ[name]
    dialects = ("sqlite", "postgresql") if options.database == "both" else (options.database,)
    texts, good = [], True
    try:
        if options.peer == "stock":
            texts.append(stock.run(options.rounds, options.seed))
        else:
            for dialect in dialects:
                dialect_report = run(dialect, options)
                texts.append(dialect_report.text())
                good = good and dialect_report.good
    except (pytest.skip.Exception, pytest.fail.Exception) as missing:
        print(f"chaos: {missing}", file=sys.stderr)
        return 2
    text = "\n".join(texts)
    if options.report:
        report.write(options.report, f"# Chaos\n\n{text}")
    print(text)
    return 0 if good else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--rate", type=float, default=20.0, help="jobs a second")
    parser.add_argument("--outage-every", type=int, default=250, help="rounds between Redis outages of 60 s")
    parser.add_argument("--peer", choices=("stock",), help="the same for plain Dramatiq")
    parser.add_argument("--report", type=Path, help="write the tables here")
    parser.add_argument("--keep", type=Path, help="keep logs and database in this folder")
    parser.add_argument("--faults", default="", help="only faults whose name has this in it")
    return parser.parse_args()


def run(dialect: str, options: argparse.Namespace) -> Report:
    folder = options.keep / dialect if options.keep else Path(tempfile.mkdtemp(prefix="millrace-chaos-"))
    shutil.rmtree(folder, ignore_errors=True)
    report = Report(dialect, options.seed)
    system, load = System(folder, dialect), Load(options.seed, options.rate)
    try:
        system.start()
        load.start()
        _rounds(system, load, report, options)
    finally:
        load.stop()
        system.end()
        if report.good and not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"logs and database: {folder}", flush=True)
    return report


def _rounds(system: System, load: Load, report: Report, options: argparse.Namespace) -> None:
    plan = _plan(random.Random(options.seed), system.dialect, options)
    rng = random.Random(options.seed + 1)  # apart, so that the plan is the seed's alone
    began, checked = time.monotonic(), ""
    probes: list[tuple[str, str, datetime]] = []
    for number, fault in enumerate(plan, 1):
        report.rounds, report.faults[fault.name] = number, report.faults[fault.name] + 1
        if fault is faults.LONG_OUTAGE:
            system.settle()  # else its minute would be counted against the faults before it
        fault.strike(system, rng)
        probes.append((fault.name, load.probe(system.supervise), clock.now()))
        system.supervise(rng.uniform(0.3, 1.5))
        if number % ROUNDS_TO_CHECK == 0 or number == options.rounds:
            after = "" if number == options.rounds else checked
            checked = max(load.confirmed, default="")
            _check(system, load, report, after)
            report.seconds = time.monotonic() - began
            load.resume()
    report.recoveries = verdict.recoveries(probes)
    report.attempts = verdict.attempts()


def _check(system: System, load: Load, report: Report, after: str) -> None:
    """Come to rest and look at every job that is newer than `after`; the last look is at all."""
    seen = verdict.judge(system, load, after)
    for name in ("lost", "doubled", "left_over"):
        known = set(getattr(report, name))
        getattr(report, name).extend(sentence for sentence in getattr(seen, name) if sentence not in known)
    report.longest_quiet_s = max(report.longest_quiet_s, seen.quiet_s)
    report.exits, report.unconfirmed = system.exits, load.unconfirmed
    report.jobs, report.effects = seen.jobs, seen.effects
    ills = f"lost {len(report.lost)}, doubled {len(report.doubled)}, left over {len(report.left_over)}"
    print(f"{system.dialect} {report.rounds}: {len(load.confirmed)} jobs, quiet after {seen.quiet_s:.1f} s, {ills}")
    for sentence in seen.sentences():
        print(f"  {sentence}")
    sys.stdout.flush()


def _plan(rng: random.Random, dialect: str, options: argparse.Namespace) -> Iterable[Fault]:
    chosen = [fault for fault in faults.FAULTS if options.faults in fault.name and dialect in fault.dialects]
    for number in range(1, options.rounds + 1):
        if options.outage_every and number % options.outage_every == 0:
            yield faults.LONG_OUTAGE
        else:
            yield rng.choices(chosen, [fault.weight for fault in chosen])[0]


if __name__ == "__main__":
    sys.exit(main())
