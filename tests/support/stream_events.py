"""Events of one job as a stream receives them."""

from __future__ import annotations

from app.jobs.events.snapshot import StreamEvent

JOB = "01a20472-8105-7f57-9d0a-6beac39f915f"


def event(seq: int, name: str = "progress", state: str = "running", attempt: int = 1) -> StreamEvent:
    return StreamEvent({"seq": seq, "event": name, "state": state, "attempt": attempt, "job_id": JOB, "percent": seq})
