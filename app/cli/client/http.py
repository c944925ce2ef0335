"""The server as the command line talks to it: one client, patient, its refusals turned into exit codes."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from app.cli import exit_codes
from app.cli.client.profiles import Place, place, settings
from app.cli.exit_codes import Quit
from app.core import http

__all__ = ["Server", "refusal", "settings", "unreachable"]

_EXIT_OF_STATUS = {
    401: exit_codes.NOT_ALLOWED,
    403: exit_codes.NOT_ALLOWED,
    404: exit_codes.NOT_FOUND,
    400: 2,
    413: 2,
    415: 2,
    422: 2,
}
# An api that restarts is back within seconds; a person waits no longer for a word.
PAUSES_S = (0.2, 0.4, 0.8, 1.6)
REPEATABLE = {"GET", "PUT", "POST"}  # a POST by its key
BUSY = {429, 502, 503, 504}
# The first request under the same key is still under way.
UNDER_WAY = "idempotency_key_in_use"
LONGEST_PAUSE_S = 10.0
UPLOAD_S = 600.0


class Server:
    """The API of the place that is meant (`app/cli/client/profiles.py`), or of `there`."""

    def __init__(self, timeout_s: float = 30.0, there: Place | None = None) -> None:
        here = there or place()
        headers = {"authorization": f"Bearer {here.key}"} if here.key else {}
        self.url, self.source = here.url, here.source
        try:
            self.client = http.client(timeout_s, base_url=self.url, headers=headers)
        except (http.InvalidURL, UnicodeEncodeError) as error:
            raise Quit(exit_codes.BAD_USE, f"{self.source}: address or key cannot be sent: {self.url}") from error

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def get(self, path: str, **parameters: Any) -> Any:
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._call("GET", path, params=given)

    def post(self, path: str, body: Any = None, **parameters: Any) -> Any:
        """Sent again where no answer came, always under the same key: what it creates is created once."""
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._call("POST", path, json=body, params=given, headers={"idempotency-key": str(uuid.uuid4())})

    def upload(self, path: str, file: Path, fields: dict[str, Any]) -> Any:
        """The file as a form, streamed; sent again under the same key where no answer came."""
        headers = {"idempotency-key": str(uuid.uuid4())}
        try:
            return self._call("POST", path, file=file, data=fields, headers=headers, timeout=UPLOAD_S)
        except OSError as error:
            raise Quit(exit_codes.BAD_USE, f"{file} cannot be read: {error}") from error

    def send(self, path: str, file: Path, media_type: str) -> Any:
        """The file as the body, streamed; sent again under the same key where no answer came."""
        headers = {"idempotency-key": str(uuid.uuid4()), "content-type": media_type}
        try:
            return self._call("POST", path, file=file, raw=True, headers=headers, timeout=UPLOAD_S)
        except OSError as error:
            raise Quit(exit_codes.BAD_USE, f"{file} cannot be read: {error}") from error

    def put(self, path: str, body: Any = None) -> Any:
        return self._call("PUT", path, json=body)

    def patch(self, path: str, body: Any = None) -> Any:
        return self._call("PATCH", path, json=body)

    def delete(self, path: str, **parameters: Any) -> Any:
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._call("DELETE", path, params=given)

    def _call(self, method: str, path: str, *, file: Path | None = None, raw: bool = False, **options: Any) -> Any:
        """The answer's JSON. Raises Quit with the server's own sentence when it refuses."""
        for pause_s in (*PAUSES_S, None):
            try:
                answer = self._asked(method, path, file, raw, options)
            except http.HTTPError as error:
                # What may have been done is asked for again only where twice is once.
                if pause_s is None or not (method in REPEATABLE or isinstance(error, http.ConnectError)):
                    raise unreachable(self.url, error) from error
                time.sleep(pause_s)
                continue
            again_s = _pause(answer, pause_s)
            if again_s is None:
                break
            time.sleep(again_s)
        if answer.is_success:
            return answer.json() if answer.content else None
        raise refusal(answer)

    def _asked(self, method: str, path: str, file: Path | None, raw: bool, options: dict[str, Any]) -> http.Response:
        """With `raw` the file is the whole body, else part of a form."""
        if file is None:
            return self.client.request(method, path, **options)
        with file.open("rb") as content:  # from its beginning, each time
            if raw:
                return self.client.request(method, path, content=content, **options)
            return self.client.request(method, path, files={"file": (file.name, content)}, **options)


def _pause(answer: http.Response, usual_s: float | None) -> float | None:
    """How long to wait before the same request is sent again; None where its answer stands."""
    if usual_s is None or not (answer.status_code in BUSY or _code(answer) == UNDER_WAY):
        return None
    told = answer.headers.get("retry-after", "")
    pause_s = max(usual_s, float(told)) if told.isdecimal() else usual_s
    return pause_s if pause_s <= LONGEST_PAUSE_S else None


def _code(answer: http.Response) -> str | None:
    if answer.status_code != 409:
        return None
    try:
        problem = answer.json()
    except ValueError:
        return None
    return str(problem.get("code")) if isinstance(problem, dict) else None


def unreachable(url: str, error: Exception) -> Quit:
    reason = str(error) or type(error).__name__
    return Quit(exit_codes.UNREACHABLE, f"no server answers at {url} ({reason}); start one with `make run`")


def refusal(answer: http.Response) -> Quit:
    """What the server said, as an exit code and a sentence."""
    code = _EXIT_OF_STATUS.get(answer.status_code, exit_codes.FAILED)
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
    if answer.status_code == 401:
        sentence += "; is the key the server's (MILLRACE_API_KEY, a profile's, or MILLRACE_API_SECRET)?"
    return Quit(code, sentence)
