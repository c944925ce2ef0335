"""The long-lived objects of this process, as dependencies of routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, WebSocket
from starlette.requests import HTTPConnection

from app.jobs.events.hub import EventHub
from app.tenants.keyring import Keyring


def keyring_of(connection: HTTPConnection) -> Keyring:
    keyring: Keyring = connection.app.state.keyring
    return keyring


def hub_of(connection: HTTPConnection) -> EventHub:
    hub: EventHub = connection.app.state.hub
    return hub


async def _keyring(request: Request) -> Keyring:
    return keyring_of(request)


async def _hub(request: Request) -> EventHub:
    return hub_of(request)


async def _hub_of_socket(websocket: WebSocket) -> EventHub:
    return hub_of(websocket)


Keys = Annotated[Keyring, Depends(_keyring)]
Events = Annotated[EventHub, Depends(_hub)]
SocketEvents = Annotated[EventHub, Depends(_hub_of_socket)]
