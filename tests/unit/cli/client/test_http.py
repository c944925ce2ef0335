"""The HTTP client repeats requests without a response, and turns final answers into exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.cli import exit_codes
from app.cli.client.http import ApiClient
from app.cli.client.profiles import Profile
from app.cli.exit_codes import CliExit
from tests.fakes.server import FakeServer, Request, Response

DROPPED = Response(drop=True)
BUSY = Response({}, 503, {"Retry-After": "0"})


class ScriptedServer(FakeServer):
    """Give these responses in order, the last one repeatedly."""

    def __init__(self, *responses: Response) -> None:
        super().__init__()
        self.responses = responses

    def respond(self, request: Request) -> Response:
        return self.responses[min(len(self.requests), len(self.responses)) - 1]

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of the requests."""
        return [request.headers["idempotency-key"] for request in self.requests]


@contextmanager
def scripted_api(*responses: Response) -> Iterator[tuple[ScriptedServer, ApiClient]]:
    with ScriptedServer(*responses).running() as server, ApiClient(profile=Profile(server.url, "key", "a test")) as api:
        yield server, api


def test_a_post_without_a_response_is_repeated_with_its_key() -> None:
    in_progress = Response({"code": "idempotency_key_in_use"}, 409)
    with scripted_api(BUSY, DROPPED, in_progress, Response({"id": 1})) as (server, api):
        assert api.post("/x", {}) == {"id": 1}
        assert (len(server.keys), len(set(server.keys))) == (4, 1)
        api.post("/x", {})
        assert len(set(server.keys)) == 2


@pytest.mark.parametrize(
    ("response", "code", "times"),
    [
        (Response({}, 429, {"Retry-After": "3600"}), exit_codes.FAILED, 1),
        (Response({"code": "job_state"}, 409), exit_codes.FAILED, 1),
        (Response({}, 500), exit_codes.FAILED, 1),
        (Response({}, 401), exit_codes.NOT_ALLOWED, 1),
        (BUSY, exit_codes.FAILED, 5),
        (DROPPED, exit_codes.UNREACHABLE, 5),
    ],
)
def test_a_final_answer_is_not_requested_again(response: Response, code: int, times: int) -> None:
    with scripted_api(response) as (server, api), pytest.raises(CliExit) as refused:
        api.post("/x")
    assert (refused.value.code, len(server.keys)) == (code, times)
