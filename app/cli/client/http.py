"""HTTP client of the command line: repeats requests while a server restarts, turns refusals into exit codes."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from app.cli import exit_codes
from app.cli.client import profiles
from app.cli.client.profiles import Profile
from app.cli.exit_codes import CliExit
from app.core import http
from app.core.ids import is_id_prefix, is_uuid

_EXIT_CODES = {
    401: exit_codes.NOT_ALLOWED,
    403: exit_codes.NOT_ALLOWED,
    404: exit_codes.NOT_FOUND,
    400: exit_codes.USAGE,
    413: exit_codes.USAGE,
    415: exit_codes.USAGE,
    422: exit_codes.USAGE,
}
# An api that restarts answers again within seconds; a person waits no longer for an answer.
PAUSES_S = (0.2, 0.4, 0.8, 1.6)
REPEATABLE = {"GET", "PUT", "POST"}  # a POST because it carries an idempotency key
BUSY = {429, 502, 503, 504}
# The first request with the same key is still running.
KEY_IN_USE = "idempotency_key_in_use"
MAX_PAUSE_S = 10.0
JOBS = "/api/jobs"
MAX_SHOWN_IDS = 5
UPLOAD_TIMEOUT_S = 600.0


class ApiClient:
    """The API of `profile`, or of the profile that `profiles.current` chooses."""

    def __init__(self, timeout_s: float = 30.0, profile: Profile | None = None) -> None:
        chosen = profile or profiles.current()
        headers = {"authorization": f"Bearer {chosen.key}"} if chosen.key else {}
        self.url = chosen.url
        self.source = chosen.source
        try:
            self.client = http.client(timeout_s, base_url=self.url, headers=headers, max_bytes=None)
        except (http.InvalidURL, UnicodeEncodeError) as error:
            message = f"{chosen.source}: address or key cannot be sent: {self.url}"
            raise CliExit(exit_codes.USAGE, message) from error

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def get(self, path: str, **parameters: Any) -> Any:
        return self._call("GET", path, params=_without_none(parameters))

    def post(self, path: str, body: Any = None, **parameters: Any) -> Any:
        """Send with an idempotency key; a repeat carries the same key, so the server acts once."""
        return self._call("POST", path, json=body, params=_without_none(parameters), headers=_idempotency_key())

    def upload(self, path: str, file: Path, fields: dict[str, Any]) -> Any:
        """Stream the file as a form; a repeat carries the same idempotency key."""
        return self._send_file(path, file, data=fields, headers=_idempotency_key())

    def send(self, path: str, file: Path, media_type: str) -> Any:
        """Stream the file as the body; a repeat carries the same idempotency key."""
        return self._send_file(path, file, raw=True, headers=_idempotency_key() | {"content-type": media_type})

    def put(self, path: str, body: Any = None) -> Any:
        return self._call("PUT", path, json=body)

    def patch(self, path: str, body: Any = None) -> Any:
        return self._call("PATCH", path, json=body)

    def delete(self, path: str, **parameters: Any) -> Any:
        return self._call("DELETE", path, params=_without_none(parameters))

    def _send_file(self, path: str, file: Path, **options: Any) -> Any:
        try:
            return self._call("POST", path, file=file, timeout=UPLOAD_TIMEOUT_S, **options)
        except OSError as error:
            raise CliExit(exit_codes.USAGE, f"{file} cannot be read: {error}") from error

    def _call(self, method: str, path: str, *, file: Path | None = None, raw: bool = False, **options: Any) -> Any:
        """Return the JSON of the response. Raises CliExit with the server's message if it refuses."""
        for pause_s in (*PAUSES_S, None):
            try:
                response = self._send(method, path, file, raw, options)
            except http.HTTPError as error:
                # A request that may have been executed is repeated only if a second execution changes nothing.
                if pause_s is None or not (method in REPEATABLE or isinstance(error, http.ConnectError)):
                    raise self.exit_for_unreachable(error) from error
                time.sleep(pause_s)
                continue
            retry_s = _retry_pause_s(response, pause_s)
            if retry_s is None:
                break
            time.sleep(retry_s)
        if response.is_success:
            return response.json() if response.content else None
        raise self.exit_for_refusal(response)

    def exit_for_unreachable(self, error: Exception) -> CliExit:
        """Return the exit for a server that does not answer."""
        reason = str(error) or type(error).__name__
        message = f"no server answers at {self.url} ({reason}); start one with `millrace up`"
        return CliExit(exit_codes.UNREACHABLE, message, server=self.url, source=self.source)

    def exit_for_refusal(self, response: http.Response) -> CliExit:
        """Return the exit code and the message for an error response."""
        code, message = read_refusal(response)
        return CliExit(code, message, server=self.url, source=self.source)

    def full_id(self, path: str, text: str, **parameters: Any) -> str:
        """Return the id of the one object of a list whose id begins with the text; the text itself if none does.

        Raises CliExit if several do.
        """
        if not text or is_uuid(text):
            return text
        matches = self._ids(path, text, parameters)
        if text in matches or not matches:
            return text
        if len(matches) > 1:
            shown = ", ".join(matches[:MAX_SHOWN_IDS])
            message = f"{text} is the beginning of several ids: {shown}; give more letters"
            raise CliExit(exit_codes.USAGE, message, server=self.url, source=self.source)
        return matches[0]

    def _ids(self, path: str, text: str, parameters: dict[str, Any]) -> list[str]:
        """Return the ids of the list that begin with the text; the list of jobs is searched by the server."""
        if path == JOBS:
            page = self.get(path, id_prefix=text, limit=MAX_SHOWN_IDS + 1) if is_id_prefix(text) else {"data": []}
            return [row["id"] for row in page["data"]]
        ids, cursor = [], None
        while True:
            page = self.get(path, limit=200, cursor=cursor, **parameters)
            ids += [row["id"] for row in page["data"] if row["id"].startswith(text)]
            cursor = page.get("next_cursor")
            if cursor is None:
                return ids

    def _send(self, method: str, path: str, file: Path | None, raw: bool, options: dict[str, Any]) -> http.Response:
        """Send once. With `raw` the file is the whole body, else it is part of a form."""
        path = _to_unicode(path)
        options = options | {name: _to_unicode(options[name]) for name in ("json", "params", "data") if name in options}
        if file is None:
            return self.client.request(method, path, **options)
        with file.open("rb") as content:  # each repeat starts at the beginning
            if raw:
                return self.client.request(method, path, content=content, **options)
            return self.client.request(method, path, files={"file": (file.name, content)}, **options)


def read_refusal(response: http.Response) -> tuple[int, str]:
    """Return the exit code and the message for an error response."""
    code = _EXIT_CODES.get(response.status_code, exit_codes.FAILED)
    try:
        problem = response.json()
    except ValueError:
        return code, f"the server answered {response.status_code}"
    if not isinstance(problem, dict):
        problem = {}
    detail = problem.get("detail") or problem.get("title")
    if isinstance(detail, list):
        detail = "; ".join(_format_fault(item) if isinstance(item, dict) else str(item) for item in detail)
    detail = str(detail or f"the server answered {response.status_code}")
    faults = [_format_fault(fault) for fault in problem.get("errors") or [] if isinstance(fault, dict)]
    faults = [fault for fault in faults if fault not in detail]
    message = detail + (": " + "; ".join(faults) if faults else "")
    if response.status_code == 401:
        message += "; check the key (MILLRACE_API_KEY, a profile's, or MILLRACE_API_SECRET)"
    return code, message


def _format_fault(fault: dict[str, Any]) -> str:
    """Return the field and the message of a fault."""
    field = fault.get("field") or ".".join(str(part) for part in fault.get("loc") or [] if part != "body")
    message = str(fault.get("message") or fault.get("msg") or fault)
    return f"{field}: {message}" if field else message


def _to_unicode(value: Any) -> Any:
    """Return the value with the bytes of words and file names that were not decoded, as in the locale C, decoded."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="surrogateescape").decode(errors="replace")
    if isinstance(value, dict):
        return {_to_unicode(name): _to_unicode(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_unicode(item) for item in value]
    return value


def _without_none(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _idempotency_key() -> dict[str, str]:
    return {"idempotency-key": str(uuid.uuid4())}


def _retry_pause_s(response: http.Response, usual_s: float | None) -> float | None:
    """Return the pause before the same request is sent again; None if this response is final."""
    if usual_s is None or not (response.status_code in BUSY or _conflict_code(response) == KEY_IN_USE):
        return None
    retry_after = response.headers.get("retry-after", "")
    pause_s = max(usual_s, float(retry_after)) if retry_after.isdecimal() else usual_s
    return pause_s if pause_s <= MAX_PAUSE_S else None


def _conflict_code(response: http.Response) -> str | None:
    if response.status_code != 409:
        return None
    try:
        problem = response.json()
    except ValueError:
        return None
    return str(problem.get("code")) if isinstance(problem, dict) else None
