"""A server that plays text-embeddings-inference and OpenAI's `/embeddings`, right or wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any, dict[str, str]]


class Player(ThreadingHTTPServer):
    """Plays TEI and OpenAI with vectors of two numbers, [length of the text, 1], unless told otherwise."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Played)
        self.batches: list[list[str]] = []
        self.most = 4
        self.info: Any = {"model_id": "m", "model_type": {"embedding": {"pooling": "cls"}}, "max_client_batch_size": 4}
        self.wrong: Callable[[list[str]], Answer | None] = lambda texts: None
        self.keys: set[str | None] = set()

    @contextmanager
    def playing(self) -> Iterator[Player]:
        """Answers for the length of a block; `stop` ends it before."""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        texts = body.get("inputs") or body["input"]
        self.batches.append(texts)
        wrong = self.wrong(texts)
        if wrong is not None:
            return wrong
        if len(texts) > self.most:
            said = f"batch size {len(texts)} > maximum allowed batch size {self.most}"
            return 422, {"error": said, "error_type": "Validation"}, {}
        rows = [[float(len(text)), 1.0] for text in texts]
        if path == "/embed":
            return 200, rows, {}
        data = [{"index": place, "embedding": row} for place, row in enumerate(rows)]
        return 200, {"data": data[::-1]}, {}


class _Played(BaseHTTPRequestHandler):
    server: Player

    def do_GET(self) -> None:
        self._send(200, self.server.info, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.keys.add(self.headers.get("authorization"))
        self._send(*self.server.answer(self.path, body))

    def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"content-length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
