"""A Redis behind TLS, and one that sentinels watch."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.processes import Process, free_port, running
from tests.support.services import RedisServer, find_program, missing
from tests.support.waiting import wait_until


class Certificates:
    """An authority of one's own, and a certificate of 127.0.0.1 and localhost by it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.authority, self.certificate, self.key = folder / "ca.pem", folder / "server.pem", folder / "server.key"
        if find_program("openssl") is None:
            missing("openssl", "apt-get install openssl")
        names = folder / "names"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        authority_key, request = folder / "ca.key", folder / "server.csr"
        fresh = ["-newkey", "rsa:2048", "-nodes"]
        self._openssl(
            "req", "-x509", *fresh, "-days", "2", "-subj", "/CN=Test CA", "-keyout", authority_key,
            "-out", self.authority,
        )  # fmt: skip
        self._openssl("req", *fresh, "-subj", "/CN=localhost", "-keyout", self.key, "-out", request)
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self.authority, "-CAkey", authority_key, "-CAcreateserial",
            "-days", "2", "-extfile", names, "-out", self.certificate,
        )  # fmt: skip

    @staticmethod
    def _openssl(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


class TlsRedis(RedisServer):
    """Answers by TLS alone; `url` names the authority."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.certificates = Certificates(folder / "tls")
        plain = self.process.command.index("--port")
        self.process.command[plain : plain + 2] = [
            "--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no",
            "--tls-cert-file", str(self.certificates.certificate), "--tls-key-file", str(self.certificates.key),
            "--tls-ca-cert-file", str(self.certificates.authority),
        ]  # fmt: skip

    def url_of(self, database: int) -> str:
        return f"rediss://127.0.0.1:{self.port}/{database}?ssl_ca_certs={self.certificates.authority}"


class Watched:
    """A master, a replica of it, and three sentinels that replace one by the other within two seconds."""

    SERVICE = "millrace"

    def __init__(self, folder: Path) -> None:
        self.servers = [RedisServer(folder / name, appendonly=True) for name in ("first", "second")]
        first, second = self.servers
        second.process.command += ["--replicaof", "127.0.0.1", str(first.port)]
        for server in self.servers:
            server.process.command += ["--repl-diskless-sync-delay", "0"]
        self.ports = [free_port() for _ in range(3)]
        self.sentinels = [self._sentinel(folder / f"sentinel-{port}", port, first.port) for port in self.ports]

    def _sentinel(self, folder: Path, port: int, master: int) -> Process:
        folder.mkdir(parents=True)
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {master} 2\n"
            f"sentinel down-after-milliseconds {self.SERVICE} 1000\n"
            f"sentinel failover-timeout {self.SERVICE} 5000\n"
        )
        command = [str(find_program("redis-server")), str(settings), "--sentinel"]
        return Process(f"sentinel-{port}", command, log=folder / "sentinel.log")

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{hosts}/{self.SERVICE}/0"

    def start(self) -> None:
        for server in self.servers:
            server.start()
        for sentinel in self.sentinels:
            sentinel.start()
        wait_until(self._is_watched, timeout_s=30, what="the sentinels to know each other and the replica")

    def _is_watched(self) -> bool:
        return all(self._knows(port) for port in self.ports)

    def _knows(self, port: int) -> bool:
        try:
            with redis.Redis(port=port, decode_responses=True) as client:
                (state,) = client.sentinel_masters().values()
        except redis.ConnectionError:
            return False
        return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1 and state["is_master"])

    def master(self) -> int:
        """The port of the master, as the sentinels say."""
        with redis.Redis(port=self.ports[0], decode_responses=True) as client:
            address = client.sentinel_get_master_addr_by_name(self.SERVICE)
        return int(address[1])

    def stop(self) -> None:
        for process in (*self.sentinels, *(server.process for server in self.servers)):
            process.stop()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A master, its replica and their sentinels, running."""
    with running(Watched(tmp_path / "watched")) as redis:
        yield redis
