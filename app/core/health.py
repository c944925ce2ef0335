"""Health port of a process that is not a web server."""

from __future__ import annotations

import errno
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from app.core import clock, metrics
from app.core.errors import ConfigError
from app.core.settings import Settings, get_settings, netloc

State = Callable[[], dict[str, Any]]
MAX_BIND_S = 15.0
BIND_PAUSE_S = 0.2
# Each connection has a thread; further ones are closed at once.
MAX_CONNECTIONS = 32


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()


class HealthServer:
    """Serves /livez, /readyz, /health and /metrics in a separate thread.

    `state` returns the body of /health: `role`, and `status`, which is "healthy" or a fault, and then /readyz is 503.
    Raises ConfigError if the port is taken.
    """

    def __init__(self, state: State) -> None:
        settings = get_settings()

        class Handler(BaseHTTPRequestHandler):
            timeout = settings.head_timeout_s

            def do_GET(self) -> None:
                status, kind, body = _answer(state, self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing: probes are frequent."""

        self._server = _listen(settings, Handler)
        self.url = f"http://{netloc(settings.health_host, self._server.server_address[1])}"
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def stop(self) -> None:
        self._server.server_close()


class _Ipv6Server(_Server):
    address_family = socket.AF_INET6


def _listen(settings: Settings, handler: type[BaseHTTPRequestHandler]) -> _Server:
    """Return a server on this program's port. Raises ConfigError if the port is taken.

    Under supervisord a predecessor may still hold the port for a moment, so the port is tried for MAX_BIND_S.
    """
    host, port = settings.health_host, settings.health_ports.get(settings.program, settings.health_port)
    kind = _Ipv6Server if ":" in host else _Server
    deadline = clock.monotonic() + (MAX_BIND_S if settings.program in settings.health_ports else 0)
    while True:
        try:
            return kind((host, port), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or clock.monotonic() > deadline:
                raise ConfigError(f"MILLRACE_HEALTH_PORT={port}: {error.strerror}") from error
        threading.Event().wait(BIND_PAUSE_S)


def _answer(state: State, path: str) -> tuple[int, str, bytes]:
    if path == "/metrics":
        return 200, metrics.CONTENT_TYPE, metrics.render(state()["role"])
    if path not in ("/health", "/livez", "/readyz"):
        return 404, "application/json", b"{}"
    body = state() | {"threads": threading.active_count()}
    status = 503 if path == "/readyz" and body["status"] != "healthy" else 200
    return status, "application/json", json.dumps(body).encode()
