"""The queues, in the order in which a worker serves them."""

from __future__ import annotations

from typing import Literal

Queue = Literal["interactive", "default", "fetch", "bulk"]

# interactive: a person waits · default · fetch: slow outside · bulk: whenever there is room
QUEUES: tuple[Queue, ...] = ("interactive", "default", "fetch", "bulk")
