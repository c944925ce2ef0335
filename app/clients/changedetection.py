"""Client of changedetection.io: watches, their snapshots, and its errors as ours.

A permanent refusal raises Rejected, a missing watch NotFound, a temporary failure Unavailable or LimitReached. The
client retries nothing. Sizes, shapes and times of responses are checked before use.
"""

from __future__ import annotations

import asyncio
import json
import uuid as uuids
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

from app.clients.changedetection_answers import (
    CREATED,
    HISTORY,
    INSTANCE,
    TAGS,
    WATCH,
    WATCHES,
    InstanceInfo,
    RequestRefused,
    Watch,
    bad_response,
    read,
    refusal,
    unavailable,
)
from app.core import http
from app.core.errors import ConfigError, NotFound
from app.core.settings import Settings, get_settings

API = "/api/v1"
# The list is not paged: room for 50,000 watches. A snapshot is the text of one page.
MAX_RESPONSE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """A watch to create, checked every `every_s` seconds or at the instance's default interval.

    `tags` are uuids. `notification` comes from changedetection_template.notification(). `more` holds other fields of
    its API (`include_filters`, `fetch_backend`), passed unchanged.
    """

    url: str
    title: str = ""
    tags: tuple[str, ...] = ()
    every_s: int | None = None
    notification: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


def interval_fields(seconds: int) -> dict[str, Any]:
    """Return the fields of a watch that set its check interval."""
    minutes, rest = divmod(max(1, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = {"weeks": 0, "days": days, "hours": hours, "minutes": minutes, "seconds": rest}
    return {"time_between_check_use_default": False, "time_between_check": parts}


class ChangeDetection:
    """Connections to one instance; used on one event loop."""

    def __init__(self, settings: Settings) -> None:
        base, key = settings.changedetection_url.strip().rstrip("/"), settings.changedetection_api_key
        self.url = base.removesuffix(API)
        self._timeout_s = settings.changedetection_timeout_s
        headers = {"x-api-key": key.get_secret_value(), "accept-encoding": "identity"}
        try:
            self._client = http.async_client(
                self._timeout_s, base_url=self.url + API, headers=headers, max_bytes=None, is_raw=True
            )
        except (http.InvalidURL, UnicodeError) as error:
            raise ConfigError(f"MILLRACE_CHANGEDETECTION_URL or its key: {error}") from error

    async def ping(self) -> InstanceInfo:
        return read(INSTANCE, await self._json("GET", "/systeminfo"))

    async def find(self, url: str) -> list[Watch]:
        """Return all watches of exactly this URL; there may be several."""
        escaped_url = _escape_braces(url)
        matches = await self._list("/search", q=escaped_url)
        # The search also matches titles and errors, and ignores case.
        return [watch for watch in matches.values() if watch.url.strip() in (escaped_url, url)]

    async def watches(self, tag: str | None = None) -> dict[str, Watch]:
        """Return the watches by uuid: all, or those with the tag of this title."""
        return await self._list("/watch", **({"tag": tag} if tag else {}))

    async def watch(self, uuid: str) -> Watch:
        return read(WATCH, await self._json("GET", _path(uuid)))

    async def create(self, request: WatchRequest) -> str:
        """Create a watch and return its uuid; its first check starts within a second.

        A second call creates a second watch of the same URL: call `find` first.
        """
        body = {"url": _escape_braces(request.url), **request.more, **request.notification}
        body |= {"title": request.title} if request.title else {}
        body |= {"tags": list(request.tags)} if request.tags else {}
        body |= interval_fields(request.every_s) if request.every_s else {}
        return read(CREATED, await self._json("POST", "/watch", json=body)).uuid

    async def update(self, uuid: str, **fields: Any) -> None:
        """Set fields of its API: `paused=True`, `tags=[…]`, `**interval_fields(3600)`, `**notification(…)`."""
        _expect_ok(await self._json("PUT", _path(uuid), json=fields))

    async def delete(self, uuid: str) -> None:
        """Delete the watch; succeeds if it does not exist."""
        try:
            if await self._request("DELETE", _path(uuid)):
                raise bad_response("a deletion must have no body")
        except NotFound:
            return
        except RequestRefused:
            # It answers 400 for a missing watch, and possibly for other reasons.
            if await self._exists(uuid):
                raise

    async def recheck(self, uuid: str) -> None:
        """Request a check soon, even of a paused watch."""
        _expect_ok(await self._json("GET", _path(uuid), params={"recheck": "true"}))

    async def history(self, uuid: str) -> list[int]:
        """Return the keys of the watch's snapshots, oldest first: the times they were taken, in epoch seconds."""
        history = read(HISTORY, await self._json("GET", _path(uuid, "history")))
        return sorted(history)

    async def snapshot(self, uuid: str, key: int | Literal["latest"] = "latest") -> str:
        """Return the page's text in this snapshot."""
        return await self._text(_path(uuid, "history", str(key)))

    async def difference(
        self, uuid: str, old: int | Literal["previous"] = "previous", new: int | Literal["latest"] = "latest"
    ) -> str:
        """Return the lines that changed between two snapshots."""
        params = {"format": "text", "changesOnly": "true"}
        return await self._text(_path(uuid, "difference", str(old), str(new)), params=params)

    async def tag(self, title: str) -> str:
        """Return the uuid of the tag with this title, ignoring case; create the tag if it does not exist."""
        tags = read(TAGS, await self._json("GET", "/tags"))
        folded_title = title.strip().casefold()
        for uuid, tag in tags.items():
            if tag.title.strip().casefold() == folded_title:
                return uuid
        return read(CREATED, await self._json("POST", "/tag", json={"title": title.strip()})).uuid

    async def close(self) -> None:
        await self._client.aclose()

    async def _exists(self, uuid: str) -> bool:
        try:
            await self.watch(uuid)
        except NotFound:
            return False
        return True

    async def _list(self, path: str, **params: str) -> dict[str, Watch]:
        rows = await self._json("GET", path, params=params)
        if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
            raise bad_response("expected an object of watches")
        return read(WATCHES, {uuid: {**row, "uuid": uuid} for uuid, row in rows.items()})

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        body = await self._request(method, path, **options)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise bad_response("the body is not JSON") from error

    async def _text(self, path: str, **options: Any) -> str:
        body = await self._request("GET", path, expected_type="text/plain", **options)
        return body.decode(errors="replace").replace("\0", "")

    async def _request(self, method: str, path: str, *, expected_type: str = "", **options: Any) -> bytes:
        """Return the body of a successful response; the timeout covers it from first to last byte."""
        try:
            async with asyncio.timeout(self._timeout_s), self._client.stream(method, path, **options) as response:
                body = await _read_body(response)
        except (TimeoutError, http.TimeoutException) as error:
            raise unavailable(f"did not answer within {self._timeout_s:g} s") from error
        except http.HTTPError as error:
            raise unavailable(f"cannot be reached: {str(error) or type(error).__name__}") from error
        if not response.is_success:
            raise refusal(response, body)
        if expected_type and not response.headers.get("content-type", "").startswith(expected_type):
            raise bad_response(f"the content type is not {expected_type}")
        return body


# A connection belongs to the event loop that opened it.
_opened: WeakKeyDictionary[asyncio.AbstractEventLoop, ChangeDetection] = WeakKeyDictionary()


def is_set_up() -> bool:
    """Return True if the settings name an instance."""
    return bool(get_settings().changedetection_url)


def changedetection() -> ChangeDetection:
    """Return the running loop's client. Raises ConfigError if none is set up."""
    if not is_set_up():
        raise ConfigError("changedetection.io is not set up: set MILLRACE_CHANGEDETECTION_URL")
    loop = asyncio.get_running_loop()
    if loop not in _opened:
        _opened[loop] = ChangeDetection(get_settings())
    return _opened[loop]


async def close_changedetection() -> None:
    """Close the running loop's connections, if any."""
    client = _opened.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.close()


def _path(uuid: str, *rest: str) -> str:
    """Return the path of a watch. Raises NotFound for an invalid uuid, which a notification may contain."""
    try:
        return "/".join(["/watch", str(uuids.UUID(uuid)), *rest])
    except ValueError as error:
        raise NotFound(f"no watch has the uuid {uuid[:80]!r}", code="changedetection_missing") from error


def _escape_braces(url: str) -> str:
    """Escape braces: changedetection.io expands a watch's URL as a template."""
    return url.strip().replace("{", "%7B").replace("}", "%7D")


async def _read_body(response: http.Response) -> bytes:
    """Return the raw body; it was requested uncompressed, so that its size is known."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise bad_response("the body is compressed, although identity was requested")
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > MAX_RESPONSE_BYTES:
            raise bad_response(f"the body is larger than {MAX_RESPONSE_BYTES} bytes")
    return bytes(body)


def _expect_ok(body: Any) -> None:
    if body != "OK":
        raise bad_response('the body is not "OK"')
