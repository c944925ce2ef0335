"""Parse the times of notifications, which a template writes in any of the usual forms."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_EPOCH = re.compile(r"[0-9]{9,13}(?:\.[0-9]{1,9})?")
# An epoch time of more digits counts milliseconds.
MAX_SECONDS_DIGITS = 12
# strftime's %Z after a time, as in the default format of changedetection.io: 2026-01-15 10:30:00 UTC.
_ZONE_NAME = re.compile(r"(.*\d)\s+\(?[A-Za-z]{1,5}\)?")


def parse_time(text: str) -> datetime:
    """Return the time of ISO 8601, RFC 2822 or seconds since 1970; one without a known zone is UTC.

    Raises ValueError.
    """
    for parse in (_of_epoch, datetime.fromisoformat, _of_mail, _of_zone_name):
        try:
            time = parse(text.strip())
            return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).astimezone(UTC)
        except (ValueError, TypeError, IndexError, OverflowError, OSError):
            continue
    raise ValueError(f"{text[:60]!r} is not a time")


def _of_epoch(text: str) -> datetime:
    if not text.isascii() or _EPOCH.fullmatch(text) is None:
        raise ValueError("not a number of seconds")
    is_milliseconds = len(text.partition(".")[0]) > MAX_SECONDS_DIGITS
    return datetime.fromtimestamp(float(text) / (1000 if is_milliseconds else 1), UTC)


def _of_mail(text: str) -> datetime:
    """Parse `Sun, 22 Nov 2026 09:10:46 +0000`, also without the weekday or with the name of a zone."""
    return parsedate_to_datetime(text)


def _of_zone_name(text: str) -> datetime:
    match = _ZONE_NAME.fullmatch(text)
    if match is None:
        raise ValueError("no zone name")
    return datetime.fromisoformat(match[1])
