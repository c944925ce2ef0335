"""Errors to Sentry, where its extra is installed and SENTRY_DSN is set: every log line of level error or above.

A report has what the log line has, with secrets masked: no request bodies, no local variables.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

from app import __version__
from app.core.logging import bound, get_logger, line_of
from app.core.settings import sentry_dsn

FLUSH_S = 2.0
TAGS = ("job_id", "kind", "request_id", "tenant", "trace_id")

log = get_logger(__name__)

_sdk: Any = None


def start(role: str) -> None:
    """Begin to report errors of this process, if SENTRY_DSN is set; a missing extra is logged."""
    global _sdk
    dsn = sentry_dsn()
    if _sdk is not None or not dsn:
        return
    try:
        sdk = importlib.import_module("sentry_sdk")
    except ImportError:
        log.warning("telemetry_not_installed", extra="sentry")
        return
    # SENTRY_ENVIRONMENT and SENTRY_RELEASE are read by the SDK.
    sdk.init(dsn=dsn, default_integrations=False, include_local_variables=False, send_default_pii=False)
    scope = sdk.get_global_scope()
    scope.set_tag("role", role)
    scope.set_tag("millrace", __version__)
    logging.getLogger().addHandler(_Reporter(level=logging.ERROR))
    _sdk = sdk


def stop() -> None:
    """Send the reports that wait; for processes that end without Python's own clean-up."""
    if _sdk is not None:
        _sdk.flush(FLUSH_S)


def report(error: BaseException) -> None:
    """Report an error that is not logged as one, such as a bug in a job, with the values bound to this task."""
    if _sdk is not None:
        with _sdk.new_scope() as scope:
            _tag(scope)
            scope.capture_exception(error)


def _tag(scope: Any) -> None:
    values = bound()
    for name in TAGS:
        if values.get(name) is not None:
            scope.set_tag(name, str(values[name]))


class _Reporter(logging.Handler):
    """Sends each record to Sentry, as the exception of the record or as its text."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("sentry_sdk", "urllib3")):
            return
        try:
            line = line_of(record)
            error = _error_of(record)
            with _sdk.new_scope() as scope:
                _tag(scope)
                scope.set_tag("event", line["event"][:200])
                scope.set_context("fields", line["fields"])
                if error is None:
                    scope.capture_message(line["event"], level=line["level"])
                else:
                    scope.capture_exception(error)
        except Exception:  # noqa: BLE001  a report that cannot be made must not fail what is logged
            self.handleError(record)


def _error_of(record: logging.LogRecord) -> BaseException | None:
    values = record.msg if isinstance(record.msg, dict) else {}
    error: Any = values.get("exc_info") or record.exc_info
    if error is True:
        error = sys.exc_info()
    raised = error[1] if isinstance(error, tuple) else error
    return raised if isinstance(raised, BaseException) else None
