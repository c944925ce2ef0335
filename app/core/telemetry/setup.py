"""Spans and error reports that a process sends to receivers outside."""

from __future__ import annotations

from app.core.telemetry import error_reports, tracing


def start(role: str) -> None:
    """Begin to send; without settings and extras this does nothing. Call it after logging.setup()."""
    tracing.start(role)
    error_reports.start(role)


def stop() -> None:
    """Send what waits."""
    tracing.stop()
    error_reports.stop()
