"""A real text-embeddings-inference, serving the model at hand."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core import http
from tests.support.processes import Process, free_port, running
from tests.support.services import missing
from tests.support.shared import BESIDE, shared_program
from tests.support.waiting import wait_until

DIMENSION = 384


def minilm() -> Path:
    """Return the folder of the transformer; skip the test where it is missing."""
    folder = BESIDE / "models" / "minilm"
    if not folder.is_dir():
        missing("the model minilm", "it lies in ../shared/models beside the repository")
    return folder


class TeiServer:
    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.model = str(minilm())
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [str(shared_program("text-embeddings-router")), "--model-id", self.model, "--hostname", "127.0.0.1"]
        command += ["--port", str(self.port), "--dtype", "float32", *options]
        self.process = Process("tei", command, log=folder / "tei.log", cwd=folder)

    @property
    def settings(self) -> dict[str, object]:
        """The settings with which our processes reach it."""
        values = {"embedder": "tei", "embedder_url": self.url, "embedder_model": self.model}
        return values | {"embedder_dimension": DIMENSION, "embedder_tokenizer": f"{self.model}/tokenizer.json"}

    def start(self) -> None:
        self.process.start()
        wait_until(self._answers, timeout_s=60, what="text-embeddings-inference")

    def _answers(self) -> bool:
        try:
            with http.client(5) as client:
                return client.get(f"{self.url}/health").is_success
        except http.HTTPError:
            if self.process.exit_code == -signal.SIGILL:
                pytest.skip("text-embeddings-router was built for processors with more instructions than this one has")
            assert self.process.alive, self.process.tail()
            return False

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()


@pytest.fixture
def tei_server(tmp_path: Path) -> Iterator[TeiServer]:
    with running(TeiServer(tmp_path / "tei", "--max-client-batch-size", "4")) as server:
        yield server
