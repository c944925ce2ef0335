"""Fake embedding server: text-embeddings-inference (TEI) and OpenAI's `/embeddings`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.fakes.server import FakeServer, Request, Response

Answer = tuple[int, Any, dict[str, str]]


class FakeEmbeddings(FakeServer):
    """Returns vectors of two numbers, [length of the text, 1]; `wrong` may answer instead."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []
        self.max_batch = 4
        self.info: Any = {"model_id": "m", "model_type": {"embedding": {"pooling": "cls"}}, "max_client_batch_size": 4}
        self.wrong: Callable[[list[str]], Answer | None] = lambda texts: None
        self.keys: set[str | None] = set()

    def respond(self, request: Request) -> Response:
        if request.method == "GET":
            return Response(self.info)
        self.keys.add(request.headers.get("authorization"))
        status, body, headers = self._embed(request)
        return Response(body, status, headers)

    def _embed(self, request: Request) -> Answer:
        texts = request.json.get("inputs") or request.json["input"]
        self.batches.append(texts)
        wrong = self.wrong(texts)
        if wrong is not None:
            return wrong
        if len(texts) > self.max_batch:
            message = f"batch size {len(texts)} > maximum allowed batch size {self.max_batch}"
            return 422, {"error": message, "error_type": "Validation"}, {}
        rows = [[float(len(text)), 1.0] for text in texts]
        if request.path == "/embed":
            return 200, rows, {}
        data = [{"index": place, "embedding": row} for place, row in enumerate(rows)]
        return 200, {"data": data[::-1]}, {}
