"""Alerts and dashboard on scrapes of a running system: quiet while all is well, and firing when it is not."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from app.core import clock
from app.core.metrics import MEASURED_BY
from tests.journeys.conftest import MODULES, Ledger
from tests.support.kinds import Noop, Slow
from tests.support.processes import Process, free_port, running
from tests.support.prometheus import Prometheus
from tests.support.stack import REPOSITORY, Stack
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(240),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),  # which database makes no difference here
]
PROCESSES = "millrace_process_info"
ALERTS = REPOSITORY / "deploy" / "alerts"
# Measured only with an index in Qdrant, and only next to other programs under one supervisord.
ELSEWHERE = re.compile(r"millrace_search_\w+|millrace_program_up")


def _rules() -> dict[str, str]:
    rules = yaml.safe_load((ALERTS / "rules.yaml").read_text())["groups"][0]["rules"]
    return {rule["alert"]: rule["expr"] for rule in rules}


def _panels() -> list[str]:
    panels = json.loads((ALERTS / "dashboard.json").read_text())["panels"]
    return [target["expr"].replace("$__rate_interval", "30s") for panel in panels for target in panel["targets"]]


def _firing(prometheus: Prometheus) -> set[str]:
    return {name for name, expression in _rules().items() if prometheus.query(expression)}


def _do_some_work(stack: Stack, ledger: Ledger) -> None:
    """Leave a sample in every metric: an ended, a timed out, a delayed job, and a request."""
    ledger.wait(ledger.enqueue(Slow(), max_tries=1), "failed", timeout_s=60)
    ledger.wait(ledger.enqueue(Noop(), due_at=clock.now() + timedelta(seconds=1)), "succeeded", timeout_s=60)
    page = stack.post("/api/documents", {"markdown": "# Sluices\n\nA sluice stops the water."})
    ledger.wait(page.json()["id"], "succeeded", timeout_s=60)


def test_alerts_are_quiet_over_a_healthy_system_and_fire_without_workers_or_relay(
    stack: Stack, ledger: Ledger, tmp_path: Path
) -> None:
    stack.env["MILLRACE_MODULES"] = MODULES
    stack.start(workers=1, scheduler=True)
    _do_some_work(stack, ledger)
    processes = {"worker": stack.workers[0], "relay": stack.relays[0], "scheduler": stack.schedulers[0]}
    targets = {"api": stack.port} | {name: stack.health_port(process) for name, process in processes.items()}
    with running(Prometheus(tmp_path / "all", targets)) as everything:
        assert _firing(everything) == set()
        _check_names(everything)
        empty = [expression for expression in _panels() if not ELSEWHERE.search(expression)]
        wait_until(
            lambda: not [expression for expression in empty if not everything.query(expression)],
            timeout_s=40,
            what="data in every panel",
        )
        stack.workers[0].kill()
        wait_until(lambda: "MillraceNoWorkers" in _firing(everything), timeout_s=60, what="an alert without workers")
        assert _firing(everything) == {"MillraceNoWorkers"}
    with running(Prometheus(tmp_path / "api", {"api": stack.port})) as only_api:
        assert _firing(only_api) == {"MillraceNoRelay", "MillraceNoScheduler"}


def test_alerts_are_quiet_where_only_the_api_of_one_supervisord_is_scraped(tmp_path: Path, database_url: str) -> None:
    """`millrace up`, and with it everything in one container: the api serves the metrics of all programs."""
    port = free_port()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    env = plain | {"MILLRACE_PORT": str(port), "MILLRACE_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-m", "app", "up", "--no-demo"]
    system = Process("up", command, log=tmp_path / "up.log", env=env, cwd=REPOSITORY)
    with running(system):
        wait_until(lambda: "Ctrl-C" in system.log.read_text(), timeout_s=120, what="up to be ready")
        with running(Prometheus(tmp_path / "prometheus", {"box": port})) as prometheus:
            wait_until(lambda: prometheus.query("millrace_workers == 1"), timeout_s=30, what="the relay's measurement")
            assert _firing(prometheus) == set()
            roles = {series["metric"]["role"]: series["metric"]["program"] for series in prometheus.query(PROCESSES)}
            assert roles == {"api": "api", "relay": "relay", "scheduler": "scheduler", "worker": "worker_00"}
            assert {series["metric"]["program"] for series in prometheus.query("millrace_workers")} == {"relay"}


def _check_names(prometheus: Prometheus) -> None:
    """Every metric that a rule or a panel names was scraped, each from the processes that measure it alone."""
    named = set(re.findall(r"\bmillrace_\w+", " ".join([*_rules().values(), *_panels()])))
    names = prometheus.names()
    assert {name for name in named - names if not ELSEWHERE.fullmatch(name)} == set()
    for name in names:
        family = re.sub(r"_(total|bucket|count|sum|created)$", "", name)
        instances = {series["metric"]["instance"] for series in prometheus.query(name)}
        assert instances <= set(MEASURED_BY[family]), name
