"""Metrics of all programs under one supervisord, as one scrape of the api."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from app.core import http, metrics
from app.core.settings import get_settings, netloc

TIMEOUT_S = 2.0


async def read(client: http.AsyncClient, ports: Mapping[str, int]) -> bytes:
    """Return the metrics of this api and of the programs at these ports. A program without an answer is left out."""
    host = get_settings().health_host
    texts = await asyncio.gather(*[_fetch(client, netloc(host, port)) for port in ports.values()])
    answers = {program: text for program, text in zip(ports, texts, strict=True) if text is not None}
    for program in ports:
        metrics.PROGRAM_UP.labels(program).set(program in answers)
    own = metrics.render("api").decode()
    # The label `program` of millrace_program_up names the program that was asked.
    return await asyncio.to_thread(metrics.join, {"api": own, **answers})


async def _fetch(client: http.AsyncClient, address: str) -> str | None:
    try:
        response = await client.get(f"http://{address}/metrics")
    except http.HTTPError:
        return None
    return response.text if response.is_success else None
