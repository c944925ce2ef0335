"""Health port of a process that is not a web server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from app.core import metrics
from app.core.errors import ConfigError
from app.core.settings import get_settings

State = Callable[[], dict[str, Any]]
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

    `state` returns the body of /health; its `status` is "healthy" or a fault, and then /readyz is 503.
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

        try:
            self._server = _Server((settings.health_host, settings.health_port), Handler)
        except OSError as error:
            raise ConfigError(f"MILLRACE_HEALTH_PORT={settings.health_port}: {error.strerror}") from error
        self.url = f"http://{settings.health_host}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def stop(self) -> None:
        self._server.server_close()


def _answer(state: State, path: str) -> tuple[int, str, bytes]:
    if path == "/metrics":
        return 200, "text/plain; version=0.0.4; charset=utf-8", metrics.render()
    if path not in ("/health", "/livez", "/readyz"):
        return 404, "application/json", b"{}"
    body = state() | {"threads": threading.active_count()}
    status = 503 if path == "/readyz" and body["status"] != "healthy" else 200
    return status, "application/json", json.dumps(body).encode()
