"""A real Qdrant of a test, alone or as a node of a cluster, to be killed and started again on its port and folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core import http
from tests.support.processes import Process, free_port, running
from tests.support.shared import shared_program
from tests.support.waiting import wait_until


class QdrantServer:
    def __init__(
        self, folder: Path, *, key: str = "", first: QdrantServer | None = None, cluster: bool = False
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.peer_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.peer_url = f"http://127.0.0.1:{self.peer_port}"
        self._key = key
        command = [str(shared_program("qdrant"))]
        if cluster:
            command += ["--uri", self.peer_url] + (["--bootstrap", first.peer_url] if first else [])
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")},
            "QDRANT__SERVICE__HOST": "127.0.0.1",
            "QDRANT__SERVICE__HTTP_PORT": str(self.port),
            "QDRANT__SERVICE__GRPC_PORT": str(free_port()),
            "QDRANT__STORAGE__STORAGE_PATH": str(folder / "storage"),
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(folder / "snapshots"),
            "QDRANT__TELEMETRY_DISABLED": "true",
            "QDRANT__LOG_LEVEL": "WARN",
        }
        if key:
            env["QDRANT__SERVICE__API_KEY"] = key
        if cluster:
            env |= {"QDRANT__CLUSTER__ENABLED": "true", "QDRANT__CLUSTER__P2P__PORT": str(self.peer_port)}
        self.process = Process("qdrant", command, log=folder / "qdrant.log", env=env, cwd=folder)

    def start(self) -> None:
        self.process.start()
        wait_until(self.answers, timeout_s=30, what=f"Qdrant on port {self.port}")

    def answers(self) -> bool:
        try:
            with http.client(5) as client:
                return client.get(f"{self.url}/readyz").is_success
        except http.HTTPError:
            assert self.process.alive, self.process.tail()
            return False

    def collections(self) -> list[str]:
        with http.client(10, headers={"api-key": self._key}) as client:
            entries = client.get(f"{self.url}/collections").json()["result"]["collections"]
        return sorted(entry["name"] for entry in entries)

    def drop(self) -> None:
        """Delete all collections: what a lost volume leaves."""
        with http.client(60, headers={"api-key": self._key}) as client:
            for name in self.collections():
                client.delete(f"{self.url}/collections/{name}").raise_for_status()

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()


@pytest.fixture(scope="session")
def shared_qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    """One server a test process; ask for `qdrant_url`, which empties it first."""
    with running(QdrantServer(tmp_path_factory.mktemp("qdrant"))) as server:
        yield server


@pytest.fixture
def qdrant_url(shared_qdrant: QdrantServer) -> str:
    """An empty Qdrant for this test alone."""
    shared_qdrant.drop()
    return shared_qdrant.url


@pytest.fixture
def qdrant_server(tmp_path: Path) -> Iterator[QdrantServer]:
    """A running Qdrant of this test alone."""
    with running(QdrantServer(tmp_path / "qdrant")) as server:
        yield server
