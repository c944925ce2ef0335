"""The server as the command line talks to it: one client, its refusals turned into exit codes."""

from __future__ import annotations

from typing import Any

from app.cli import exits
from app.cli.exits import Quit
from app.core import http
from app.core.errors import ConfigError
from app.core.settings import Settings, get_settings

_EXIT_OF_STATUS = {401: exits.NOT_ALLOWED, 403: exits.NOT_ALLOWED, 404: exits.NOT_FOUND, 400: 2, 413: 2, 422: 2}


def settings() -> Settings:
    """The settings of this command; a wrong one ends it with one sentence."""
    try:
        return get_settings()
    except ConfigError as error:
        raise Quit(exits.BAD_USE, error.message) from error


class Server:
    """The API at MILLRACE_URL, with the secret of the settings."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        here = settings()
        secret = here.api_secret.get_secret_value()
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        self.url = here.api_url
        try:
            self.client = http.client(timeout_s, base_url=self.url, headers=headers)
        except http.InvalidURL as error:
            raise Quit(exits.BAD_USE, f"MILLRACE_URL is not a URL: {self.url}") from error

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def get(self, path: str, **parameters: Any) -> Any:
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._call("GET", path, params=given)

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        """The answer's JSON. Raises Quit with the server's own sentence when it refuses."""
        try:
            answer = self.client.request(method, path, **options)
        except http.HTTPError as error:
            raise unreachable(self.url, error) from error
        if answer.is_success:
            return answer.json() if answer.content else None
        raise refusal(answer)


def unreachable(url: str, error: Exception) -> Quit:
    reason = str(error) or type(error).__name__
    return Quit(exits.UNREACHABLE, f"no server answers at {url} ({reason}); start one with `make run`")


def refusal(answer: http.Response) -> Quit:
    """What the server said, as an exit code and a sentence."""
    code = _EXIT_OF_STATUS.get(answer.status_code, exits.FAILED)
    try:
        problem = answer.json()
    except ValueError:
        return Quit(code, f"the server answered {answer.status_code}")
    detail = problem.get("detail") or problem.get("title") if isinstance(problem, dict) else None
    if isinstance(detail, list):
        detail = "; ".join(str(item.get("msg", item)) if isinstance(item, dict) else str(item) for item in detail)
    faults = problem.get("errors") or [] if isinstance(problem, dict) else []
    told = [str(fault.get("message") or fault.get("msg")) for fault in faults if isinstance(fault, dict)]
    sentence = " ".join([str(detail or f"the server answered {answer.status_code}"), *told])
    if code == exits.NOT_ALLOWED:
        sentence += "; is MILLRACE_API_SECRET the server's?"
    return Quit(code, sentence)
