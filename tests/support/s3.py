"""A local server that speaks S3 (moto's), with one bucket."""

from __future__ import annotations

import sys
from pathlib import Path

from app.core import http
from tests.support.processes import Process, free_port
from tests.support.waiting import wait_until

BUCKET = "originals"


class S3Server:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = Process("s3", command, log=folder / "s3.log")

    @property
    def settings(self) -> dict[str, str]:
        """The settings with which our processes reach it."""
        return {
            "blob_url": f"s3://{BUCKET}/here",
            "s3_endpoint": self.endpoint,
            "s3_access_key_id": "tests",
            "s3_secret_access_key": "tests-only",
        }

    def start(self) -> None:
        self.process.start()
        wait_until(self._has_bucket, timeout_s=40, what="the S3 server")

    def _has_bucket(self) -> bool:
        try:
            with http.client(5) as client:
                return client.put(f"{self.endpoint}/{BUCKET}").is_success
        except http.HTTPError:
            assert self.process.alive, self.process.tail()
            return False

    def stop(self) -> None:
        self.process.stop()
