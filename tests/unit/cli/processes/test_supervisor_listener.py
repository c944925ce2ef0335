"""The listener records why programs end, and knows when Redis is ready."""

from __future__ import annotations

from pathlib import Path

from app.cli.processes.supervisor_listener import SupervisorListener, is_redis_ready
from tests.support.services import RedisServer


def test_a_refusal_stays_the_last_line_of_a_program(tmp_path: Path) -> None:
    listener = SupervisorListener("json", str(tmp_path / "none.sock"), tmp_path / "fault", ["api"])
    head = "processname:api groupname:api pid:1 channel:stdout"
    listener.handle("PROCESS_LOG_STDOUT", head + "\nfirst\nmillrace api: it is wrong\n\n")
    listener.handle("PROCESS_LOG_STDOUT", head + "\nWorker with PID 2 exited\n")
    assert listener.last_lines == {"api": "millrace api: it is wrong"}
    listener.handle("PROCESS_STATE_EXITED", "processname:api groupname:api from_state:RUNNING expected:0 pid:1")
    assert not (tmp_path / "fault").exists(), "a program that crashed is started again"


def test_redis_is_ready_only_when_it_accepts_commands(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", password="a secret of the test")
    conf = tmp_path / "redis.conf"
    conf.write_text(f"bind 127.0.0.1\nport {server.port}\nrequirepass wrong\n")
    assert not is_redis_ready(conf)
    server.password = "right"
    server.process.command[-1] = "right"
    server.start()
    try:
        assert not is_redis_ready(conf)
        conf.write_text(conf.read_text().replace("wrong", "right"))
        assert is_redis_ready(conf)
    finally:
        server.stop()
