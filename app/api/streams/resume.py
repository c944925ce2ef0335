"""The event after which a stream continues: a header for programs, a query parameter for browsers."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Query

LastEventIdHeader = Annotated[str | None, Header(alias="Last-Event-ID", description="Continue after this event.")]
_LastEventIdQuery = Annotated[
    str | None, Query(alias="last_event_id", description="The same for clients that cannot set headers.")
]


async def _last_event_id(header: LastEventIdHeader = None, query: _LastEventIdQuery = None) -> str | None:
    return header if header is not None else query


LastEventId = Annotated[str | None, Depends(_last_event_id)]
