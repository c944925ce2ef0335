"""Notification settings of a watch: the body that changedetection.io sends when a page changes, and the URL.

changedetection.io signs nothing, so a secret travels in a header. Only its `json://` transport retries and has a
timeout; with it the receiver gets `{"payload": "<the JSON of BODY>"}`.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, urlsplit

from app.core.errors import InvalidInput

PATH = "/api/webhook/changedetection"
EVENT = "watch.changed"
# The longest notification URL that it accepts.
MAX_URL_CHARACTERS = 1000
# The transport's retries, pause between them and response timeout; all run in its one worker.
RETRIES, WAIT_S, READ_TIMEOUT_S = 5, 2, 10
_NETLOC = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
# `tojson` writes each value as JSON with quotes; without it a quote in a page would break the body.
_FIELDS = {
    "watch_uuid": "watch_uuid",
    "watch_url": "watch_url",
    "title": "watch_title",
    # The key of the new snapshot in the watch's history: with the uuid it identifies the event.
    "history_key": 'change_datetime(format="%s")',
    "changed_at": 'change_datetime(format="%Y-%m-%dT%H:%M:%S%z")',
    "tags": "watch_tag",
    "diff": "diff_patch",
}
BODY = f'{{"event":{json.dumps(EVENT)},' + ",".join(f'"{k}":{{{{ {v}|tojson }}}}' for k, v in _FIELDS.items()) + "}"


def notification(our_base_url: str, token: str) -> dict[str, Any]:
    """Return the fields of a watch that notify us; `text` has an effect only when set on the watch itself."""
    return {
        "notification_urls": [notification_url(our_base_url, token)],
        "notification_body": BODY,
        "notification_format": "text",
    }


def notification_url(our_base_url: str, token: str) -> str:
    """Return the notification URL in the transport's syntax.

    Raises InvalidInput for a base URL or a token that it cannot express.
    """
    schemes = {"http": "json", "https": "jsons"}
    try:
        base = urlsplit(our_base_url.strip())
        is_usable = base.scheme in schemes and _NETLOC.fullmatch(base.netloc) and not base.query and not base.fragment
    except ValueError:  # an unclosed bracket
        is_usable = None
    if not is_usable:
        raise InvalidInput(
            f"notifications need an http or https URL without a query, not {our_base_url}", code="notification_url"
        )
    if not token or not all("!" <= letter <= "~" for letter in token):
        raise InvalidInput("the token must consist of visible ASCII characters", code="notification_token")
    # The URL is a template too, so braces are encoded; header values are decoded twice, so % is encoded twice.
    path = quote(base.path.rstrip("/") + PATH, safe="/%")
    key = quote(f"Bearer {token}".replace("%", "%25"), safe="")
    shape = f":version=&:type=&:attachments=&:title=&:message=payload&+Authorization={key}"
    url = f"{schemes[base.scheme]}://{base.netloc}{path}?{shape}&retry={RETRIES}&wait={WAIT_S}&rto={READ_TIMEOUT_S}"
    if len(url) > MAX_URL_CHARACTERS:
        raise InvalidInput(
            f"the notification URL is longer than {MAX_URL_CHARACTERS} characters", code="notification_url"
        )
    return url
