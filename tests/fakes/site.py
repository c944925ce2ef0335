"""Fake web site whose pages a test sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.fakes.server import FakeServer, Request, Response

HTML = {"content-type": "text/html; charset=utf-8"}


def page(
    body: bytes = b"",
    status: int = 200,
    headers: dict[str, str] | None = None,
    *,
    repeat: int = 1,
    delay_s: float = 0.0,
) -> Response:
    """Return a page of the site, HTML by default."""
    return Response(body, status, HTML if headers is None else headers, repeat=repeat, delay_s=delay_s)


class FakeSite(FakeServer):
    """Serves `pages` by path and query; answers 304 to a matching etag."""

    keep_alive = True

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[str, Response] = {}

    @property
    def visits(self) -> list[tuple[str, str]]:
        """Path with query and Host header of each request."""
        return [(request.target, request.headers.get("host", "")) for request in self.requests]

    def respond(self, request: Request) -> Response:
        response = self.pages.get(request.target, page(b"no such page", 404))
        etag = response.headers.get("etag")
        if etag and request.headers.get("if-none-match") == etag:
            return replace(response, body=b"", status=304, headers={"etag": etag})
        return response


@pytest.fixture
def site() -> Iterator[FakeSite]:
    with FakeSite().running() as running:
        yield running
