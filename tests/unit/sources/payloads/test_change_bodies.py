"""Notifications of changedetection.io in all their shapes, and invalid ones."""

# ruff: noqa: E501  bodies read best on a line

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core import clock
from app.core.errors import InvalidInput
from app.sources.payloads.change_bodies import REPEAT_WINDOW_S, PageChange, parse

URL = "https://example.org/prices"
UUID = "9f0d40e2-48b3-429e-ac12-706728affa97"
OURS = {
    "event": "watch.changed",
    "watch_uuid": UUID,
    "watch_url": URL,
    "title": "Prices",
    "history_key": "1795338646",
    "changed_at": "2026-11-22T09:10:46+0000",
    "tags": "Shop",
    "diff": "-1\n+2",
}
AT = datetime(2026, 11, 22, 9, 10, 46, tzinfo=UTC)


def _parse(body: Any) -> PageChange:
    return parse(body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        OURS,
        {"payload": json.dumps(OURS)},
        {"payload": json.dumps(OURS), "version": "1.0", "title": "ChangeDetection.io Notification", "type": "info"},
        {"version": "1.0", "title": "x", "message": json.dumps(OURS), "type": "info", "attachments": []},
        urlencode({"version": "1.0", "title": "x", "message": json.dumps(OURS), "type": "info"}).encode(),
        json.dumps(OURS).replace("\\n", "\n").encode(),  # a template without tojson
    ],
)  # fmt: skip
def test_our_template_however_it_is_wrapped(body: Any) -> None:
    event = _parse(body)
    assert (event.url, event.watch_id, event.history_key, event.detected_at) == (URL, UUID, 1795338646, AT)
    assert (event.title, event.diff, event.key) == ("Prices", "-1\n+2", f"{UUID}:1795338646")


def test_the_older_service_s_own() -> None:
    event = _parse(
        {
            "watch_id": "w",
            "watch_url": URL,
            "detected_at": "2026-11-22T09:10:46Z",
            "watch_title": "Prices",
            "diff_url": "http://cd/diff/w",
            "snapshot": "x" * 900,
        }
    )
    assert (event.url, event.watch_id, event.detected_at, event.diff_url) == (URL, "w", AT, "http://cd/diff/w")
    assert len(event.diff) == 500 and event.extra["diff_size"] == 900 and event.history_key is None
    naive = _parse({"watch_id": "w", "watch_url": URL, "detected_at": "2026-11-22T09:10:46"})
    assert naive.detected_at == AT


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-22T09:10:46Z", "2026-11-22 09:10:46 UTC", "2026-11-22T10:10:46+0100",
        "Sun, 22 Nov 2026 09:10:46 +0000", "Sun, 22 Nov 2026 10:10:46 +0100", "Sun, 22 Nov 2026 09:10:46 GMT",
        "22 Nov 2026 09:10:46 -0000", "Sun, 22 Nov 2026 04:10:46 EST", "Sunday, 22-Nov-26 09:10:46 GMT",
        "1795338646", 1795338646, 1795338646.0, "1795338646000",
    ],
)  # fmt: skip
def test_a_time_of_detection_in_any_usual_form(time: Any) -> None:
    assert _parse({"watch_url": URL, "detected_at": time}).detected_at == AT


@pytest.mark.parametrize("url", [f"source:{URL}", f"Source: {URL}", f" source:{URL} "])
def test_the_mark_of_a_watched_source_is_no_part_of_the_address(url: str) -> None:
    assert _parse({**OURS, "watch_url": url}).url == URL
    assert _parse(f"source:{URL} had a change.".encode()).url == URL


@pytest.mark.parametrize(
    "body",
    [
        {"version": "1.0", "title": f"ChangeDetection.io Notification - {URL}", "message": f"{URL} had a change.<br>\n---<br>\n<span>x</span>", "attachments": [], "type": "info"},
        {"version": "1.0", "title": "", "message": f"{URL} had a change.\n---\n(changed) a", "type": "info"},
        {"version": "1.0", "title": f"Notification - {URL}", "type": "info", "watch": UUID, "diff": "(changed) a"},
        f"{URL} had a change.\n---\n(changed) a\n(into) b".encode(),
    ],
)  # fmt: skip
def test_the_product_s_own_texts_name_the_page(body: Any) -> None:
    assert _parse(body).url == URL


def test_a_message_without_a_key_is_itself_for_some_minutes_only() -> None:
    """A page that changes back sends the same bytes for two changes."""
    body = f"{URL} had a change."
    first = _parse(body.encode())
    before = first.key
    shift = clock.shifted()
    try:
        clock.shift(shift + timedelta(seconds=REPEAT_WINDOW_S))
        assert first.key == _parse(body.encode()).key != before
    finally:
        clock.shift(shift)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b"   ", "empty"),
        (b"[1]", "must be a JSON object"),
        (b"nothing of interest", "watch_url"),
        ({}, "watch_url"),
        ({"watch_url": "ftp://a.org"}, "not an http or https URL"),
        ({"watch_url": "http://[::1"}, "not an http or https URL"),
        ({"watch_url": "https://a.org/" + "x" * 3000}, "not an http or https URL"),
        ({"watch_url": URL, "detected_at": "yesterday"}, "detected_at"),
        ({"watch_url": URL, "history_key": "-1"}, "history_key"),
        ({"watch_url": URL, "history_key": "999999999999"}, "detected_at"),
        ({"watch_url": ["https://a.org"]}, "watch_url"),
        (b"[" * 100_000, "watch_url"),
    ],
)
def test_what_is_none(body: Any, why: str) -> None:
    with pytest.raises(InvalidInput, match="Invalid payload") as caught:
        _parse(body)
    assert why in caught.value.message


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # slow is the machine
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["watch_url", "url", "message", "title", "payload", "history_key", "detected_at", "watch_uuid", "diff", "x"]), inner)))  # fmt: skip
def test_no_json_is_a_bug(body: Any) -> None:
    try:
        _parse(body)
    except InvalidInput as error:
        assert error.code == "webhook_payload"


@given(st.binary(max_size=200))
def test_no_bytes_are_a_bug(raw: bytes) -> None:
    try:
        parse(raw)
    except InvalidInput as error:
        assert error.code == "webhook_payload"
