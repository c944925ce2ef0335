"""changedetection.io: its watches, what they have seen, and its errors in our words.

A final no raises Rejected, what is not there NotFound, patience Unavailable or LimitReached. Nothing is repeated here.
What it answers is no more than a claim: sizes, shapes and times are checked before anybody uses them.
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
    Watch,
    bad_response,
    read,
    refusal,
    unavailable,
)
from app.core import http
from app.core.errors import ConfigError, NotFound, Rejected
from app.core.settings import Settings, get_settings

API = "/api/v1"
# A list has no pages: 50,000 watches with all that is told of them. A snapshot is a page's text.
MAX_RESPONSE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """A watch to be made: checked every `every_s` seconds, or as the instance does by default.

    `tags` are uuids. `notification` is changedetection_template.notification(). `more` goes as it is: any other field
    of its API (`include_filters`, `fetch_backend`).
    """

    url: str
    title: str = ""
    tags: tuple[str, ...] = ()
    every_s: int | None = None
    notification: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


def every(seconds: int) -> dict[str, Any]:
    """The fields of a watch that is checked this often."""
    minutes, rest = divmod(max(1, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = {"weeks": 0, "days": days, "hours": hours, "minutes": minutes, "seconds": rest}
    return {"time_between_check_use_default": False, "time_between_check": parts}


class ChangeDetection:
    """One instance as one event loop uses it."""

    def __init__(self, settings: Settings) -> None:
        base, key = settings.changedetection_url.strip().rstrip("/"), settings.changedetection_api_key
        self.url = base.removesuffix(API)
        self._timeout_s = settings.changedetection_timeout_s
        headers = {"x-api-key": key.get_secret_value(), "accept-encoding": "identity"}
        try:
            self._client = http.async_client(self._timeout_s, base_url=self.url + API, headers=headers)
        except (http.InvalidURL, UnicodeError) as error:
            raise ConfigError(f"MILLRACE_CHANGEDETECTION_URL or its key: {error}") from error

    async def ping(self) -> InstanceInfo:
        return read(INSTANCE, await self._json("GET", "/systeminfo"))

    async def find(self, url: str) -> list[Watch]:
        """All watches of exactly this address: it may have several."""
        wanted = _no_template(url)
        found = await self._listed("/search", q=wanted)
        # The search also looks at titles and errors, and at neither's case.
        return [watch for watch in found.values() if watch.url.strip() in (wanted, url)]

    async def watches(self, tag: str | None = None) -> dict[str, Watch]:
        """All by uuid, or those with a tag of this title."""
        return await self._listed("/watch", **({"tag": tag} if tag else {}))

    async def watch(self, uuid: str) -> Watch:
        return read(WATCH, await self._json("GET", _path(uuid)))

    async def create(self, wanted: WatchRequest) -> str:
        """Its uuid; checked within a second. The same again makes a second watch: ask `find` first."""
        body = {"url": _no_template(wanted.url), **wanted.more, **wanted.notification}
        body |= {"title": wanted.title} if wanted.title else {}
        body |= {"tags": list(wanted.tags)} if wanted.tags else {}
        body |= every(wanted.every_s) if wanted.every_s else {}
        return read(CREATED, await self._json("POST", "/watch", json=body)).uuid

    async def update(self, uuid: str, **fields: Any) -> None:
        """Set these fields of its API: `paused=True`, `tags=[…]`, `**every(3600)`, `**notification(…)`."""
        _expect_ok(await self._json("PUT", _path(uuid), json=fields))

    async def delete(self, uuid: str) -> None:
        """Afterwards there is none; also where there was none before."""
        try:
            if await self._called("DELETE", _path(uuid)):
                raise bad_response("a deletion has no body")
        except NotFound:
            return
        except Rejected as error:
            # 400 is said of a watch that is gone, and perhaps of other things.
            if error.code != "changedetection_rejected" or await self._is_there(uuid):
                raise

    async def recheck(self, uuid: str) -> None:
        """Have it checked soon, though it be paused."""
        _expect_ok(await self._json("GET", _path(uuid), params={"recheck": "true"}))

    async def history(self, uuid: str) -> list[int]:
        """The keys of its snapshots, the oldest first: when each was taken, in seconds since 1970."""
        found = read(HISTORY, await self._json("GET", _path(uuid, "history")))
        return sorted(found)

    async def snapshot(self, uuid: str, key: int | Literal["latest"] = "latest") -> str:
        """The page's text as it was then."""
        return await self._text(_path(uuid, "history", str(key)))

    async def difference(
        self, uuid: str, old: int | Literal["previous"] = "previous", new: int | Literal["latest"] = "latest"
    ) -> str:
        """The lines that changed between two snapshots."""
        asked = {"format": "text", "changesOnly": "true"}
        return await self._text(_path(uuid, "difference", str(old), str(new)), params=asked)

    async def tag(self, title: str) -> str:
        """The uuid of the tag with this title, whatever its case; made where there is none."""
        known = read(TAGS, await self._json("GET", "/tags"))
        wanted = title.strip().casefold()
        for uuid, one in known.items():
            if one.title.strip().casefold() == wanted:
                return uuid
        return read(CREATED, await self._json("POST", "/tag", json={"title": title.strip()})).uuid

    async def close(self) -> None:
        await self._client.aclose()

    async def _is_there(self, uuid: str) -> bool:
        try:
            await self.watch(uuid)
        except NotFound:
            return False
        return True

    async def _listed(self, path: str, **params: str) -> dict[str, Watch]:
        said = await self._json("GET", path, params=params)
        if not isinstance(said, dict) or not all(isinstance(one, dict) for one in said.values()):
            raise bad_response("no list of watches")
        return read(WATCHES, {uuid: {**one, "uuid": uuid} for uuid, one in said.items()})

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        body = await self._called(method, path, **options)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise bad_response("no JSON") from error

    async def _text(self, path: str, **options: Any) -> str:
        body = await self._called("GET", path, of_type="text/plain", **options)
        return body.decode(errors="replace").replace("\0", "")

    async def _called(self, method: str, path: str, *, of_type: str = "", **options: Any) -> bytes:
        """The body of a good answer, within the timeout from first to last byte."""
        try:
            async with asyncio.timeout(self._timeout_s), self._client.stream(method, path, **options) as answer:
                body = await _body(answer)
        except (TimeoutError, http.TimeoutException) as error:
            raise unavailable(f"did not answer within {self._timeout_s:g} s") from error
        except http.HTTPError as error:
            raise unavailable(f"cannot be reached: {str(error) or type(error).__name__}") from error
        if not answer.is_success:
            raise refusal(answer, body)
        if of_type and not answer.headers.get("content-type", "").startswith(of_type):
            raise bad_response(f"not {of_type}")
        return body


# A connection belongs to the loop it was made in.
_opened: WeakKeyDictionary[asyncio.AbstractEventLoop, ChangeDetection] = WeakKeyDictionary()


def is_set_up() -> bool:
    """Whether the settings name an instance."""
    return bool(get_settings().changedetection_url)


def changedetection() -> ChangeDetection:
    """The running loop's client. Raises ConfigError where none is set up."""
    if not is_set_up():
        raise ConfigError("MILLRACE_CHANGEDETECTION_URL names no changedetection.io")
    loop = asyncio.get_running_loop()
    if loop not in _opened:
        _opened[loop] = ChangeDetection(get_settings())
    return _opened[loop]


async def close_changedetection() -> None:
    """Close the running loop's connections, if it has any."""
    client = _opened.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.close()


def _path(uuid: str, *rest: str) -> str:
    """Of a watch. What is no uuid, as a notification may claim, is not there, and no path either."""
    try:
        return "/".join(["/watch", str(uuids.UUID(uuid)), *rest])
    except ValueError as error:
        raise NotFound(f"no watch has the uuid {uuid[:80]!r}", code="changedetection_missing") from error


def _no_template(url: str) -> str:
    """A watch's address is a template there, and no address of ours is one."""
    return url.strip().replace("{", "%7B").replace("}", "%7D")


async def _body(answer: http.Response) -> bytes:
    """As it came: asked for uncompressed, so that its size is known."""
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise bad_response("compressed, though nobody asked for that")
    body = bytearray()
    async for part in answer.aiter_raw():
        body += part
        if len(body) > MAX_RESPONSE_BYTES:
            raise bad_response(f"more than {MAX_RESPONSE_BYTES} bytes")
    return bytes(body)


def _expect_ok(said: Any) -> None:
    if said != "OK":
        raise bad_response("not OK")
