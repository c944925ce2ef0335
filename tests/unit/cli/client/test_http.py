"""The HTTP client repeats requests without a response, and turns final answers into exit codes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.cli import exit_codes
from app.cli.client.http import ApiClient
from app.cli.client.profiles import Profile
from app.cli.exit_codes import CliExit

HANG_UP = 0
Answer = tuple[int, dict[str, str], dict[str, Any]]


class ScriptedServer(ThreadingHTTPServer):
    """Give these answers in order, the last one repeatedly, and record the idempotency keys."""

    def __init__(self, *answers: Answer) -> None:
        self.keys: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, headers, body = answers[min(len(server.keys), len(answers) - 1)]
                server.keys.append(self.headers["idempotency-key"])
                self.rfile.read(int(self.headers.get("content-length", 0)))
                if status == HANG_UP:
                    self.close_connection = True
                    return
                self.send_response(status)
                text = json.dumps(body).encode()
                for name, value in (headers | {"content-length": str(len(text))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                return

        super().__init__(("127.0.0.1", 0), Handler)


@contextmanager
def scripted_server(*answers: Answer) -> Iterator[tuple[ScriptedServer, ApiClient]]:
    server = ScriptedServer(*answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        with ApiClient(profile=Profile(f"http://127.0.0.1:{server.server_port}", "key", "a test")) as client:
            yield server, client
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_a_post_without_a_response_is_repeated_with_its_key() -> None:
    busy: Answer = (503, {"Retry-After": "0"}, {})
    hung_up: Answer = (HANG_UP, {}, {})
    in_progress: Answer = (409, {}, {"code": "idempotency_key_in_use"})
    with scripted_server(busy, hung_up, in_progress, (200, {}, {"id": 1})) as (server, client):
        assert client.post("/x", {}) == {"id": 1}
        assert (len(server.keys), len(set(server.keys))) == (4, 1)
        client.post("/x", {})
        assert len(set(server.keys)) == 2


@pytest.mark.parametrize(
    ("answer", "code", "times"),
    [
        ((429, {"Retry-After": "3600"}, {}), exit_codes.FAILED, 1),
        ((409, {}, {"code": "job_state"}), exit_codes.FAILED, 1),
        ((500, {}, {}), exit_codes.FAILED, 1),
        ((401, {}, {}), exit_codes.NOT_ALLOWED, 1),
        ((503, {"Retry-After": "0"}, {}), exit_codes.FAILED, 5),
        ((HANG_UP, {}, {}), exit_codes.UNREACHABLE, 5),
    ],
)
def test_a_final_answer_is_not_requested_again(answer: Answer, code: int, times: int) -> None:
    with scripted_server(answer) as (server, client), pytest.raises(CliExit) as refused:
        client.post("/x")
    assert (refused.value.code, len(server.keys)) == (code, times)
