"""A Prometheus that scrapes running processes, and answers queries about what it has read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.core.http import HTTPError, client
from tests.support.processes import Process, free_port
from tests.support.services import find_program, missing
from tests.support.waiting import wait_until


class Prometheus:
    """Scrape each target once a second; `targets` maps a name, the label `instance`, to a port of the loopback."""

    def __init__(self, folder: Path, targets: Mapping[str, int]) -> None:
        program = find_program("prometheus")
        if program is None:
            missing("prometheus", "apt-get install prometheus")
        folder.mkdir(parents=True)
        self.targets = targets
        self.port = free_port()
        groups = [{"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}} for name, port in targets.items()]
        job = {"job_name": "millrace", "static_configs": groups}
        configuration = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
        (folder / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
        command = [str(program), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error"]
        self.process = Process("prometheus", command, log=folder / "prometheus.log")

    def start(self) -> None:
        """Start it, and wait until every target has been scraped."""
        self.process.start()
        wait_until(lambda: len(self._ups()) == len(self.targets), timeout_s=60, what="a scrape of every target")

    def _ups(self) -> list[dict[str, Any]]:
        try:
            return self.query("up == 1")
        except HTTPError:
            assert self.process.alive, self.process.tail()
            return []

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression, as of now."""
        with client(10, base_url=f"http://127.0.0.1:{self.port}") as http:
            response = http.get("/api/v1/query", params={"query": expression})
        if response.status_code == 503:  # it still starts
            return []
        answer = response.json()
        assert answer["status"] == "success", (expression, answer)
        series: list[dict[str, Any]] = answer["data"]["result"]
        return series

    def names(self) -> set[str]:
        """Return the names of all series that were scraped."""
        return {
            series["metric"]["__name__"] for series in self.query('count by (__name__) ({__name__=~"millrace_.+"})')
        }

    def stop(self) -> None:
        self.process.stop()
