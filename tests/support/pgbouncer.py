"""PgBouncer in transaction mode before a PostgreSQL: each transaction may meet another server process."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psycopg

from tests.support.processes import Process, free_port
from tests.support.services import PostgresServer, find_program, missing, unprivileged_account
from tests.support.waiting import wait_until

SERVERS = 6


class PgBouncer:
    """`url_of` a database, like its server's; only so many server processes for all clients together."""

    def __init__(self, server: PostgresServer) -> None:
        program = find_program("pgbouncer")
        if program is None:
            missing("pgbouncer", "apt-get install pgbouncer")
        self._server = server
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="millrace-pgb-"))
        settings = self.folder / "pgbouncer.ini"
        target = f"host=127.0.0.1 port={server.port} user={server.user} password={server.password}"
        settings.write_text(
            f"[databases]\n* = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            f"unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {SERVERS}\n"
            "max_client_conn = 500\n"
        )
        account = unprivileged_account()
        if account:
            for path in (self.folder, settings):
                os.chown(path, account.uid, account.gid)
        log = self.folder / "pgbouncer.log"
        self.process = Process("pgbouncer", [str(program), str(settings)], log=log, account=account, cwd=self.folder)

    def url_of(self, database: str) -> str:
        return f"postgresql+psycopg://{self._server.user}@127.0.0.1:{self.port}/{database}"

    def start(self, database: str) -> None:
        self.process.start()
        wait_until(lambda: self._answers(database), timeout_s=15, what="pgbouncer")

    def _answers(self, database: str) -> bool:
        try:
            psycopg.connect(self.url_of(database).replace("+psycopg", ""), connect_timeout=5).close()
        except psycopg.OperationalError:
            assert self.process.alive, self.process.tail()
            return False
        return True

    def stop(self) -> None:
        self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
