"""What changedetection.io is told to send us when a page has changed, and where to.

It signs nothing, so a secret travels in a header. Its `json://` transport is asked for, since that alone tries again
and has a time limit: the receiver gets `{"payload": "<the JSON of BODY>"}`.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, urlsplit

from app.core.errors import InvalidInput

PATH = "/api/webhook/changedetection"
EVENT = "watch.changed"
# What it takes of one notification URL.
MAX_URL_CHARACTERS = 1000
# Of the transport: tries beyond the first, seconds between them, seconds an answer may take. All run in its one worker.
RETRIES, WAIT_S, READ_S = 5, 2, 10
_PLACE = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
# Each is filled in as JSON with its quotes; written without `tojson`, a quote in a page would break the whole.
_FIELDS = {
    "watch_uuid": "watch_uuid",
    "watch_url": "watch_url",
    "title": "watch_title",
    # The key of the new snapshot in the watch's history: with the uuid, what makes two notifications one event.
    "history_key": 'change_datetime(format="%s")',
    "changed_at": 'change_datetime(format="%Y-%m-%dT%H:%M:%S%z")',
    "tags": "watch_tag",
    "diff": "diff_patch",
}
BODY = f'{{"event":{json.dumps(EVENT)},' + ",".join(f'"{k}":{{{{ {v}|tojson }}}}' for k, v in _FIELDS.items()) + "}"


def notification(our_base_url: str, token: str) -> dict[str, Any]:
    """The fields of a watch that make it tell us; `text` is said on the watch itself, where alone it counts."""
    return {
        "notification_urls": [notification_url(our_base_url, token)],
        "notification_body": BODY,
        "notification_format": "text",
    }


def notification_url(our_base_url: str, token: str) -> str:
    """Where to, as its transport writes it. Raises InvalidInput for a base or a token that it could not carry."""
    schemes = {"http": "json", "https": "jsons"}
    try:
        base = urlsplit(our_base_url.strip())
        is_usable = base.scheme in schemes and _PLACE.fullmatch(base.netloc) and not base.query and not base.fragment
    except ValueError:  # a bracket that is not closed
        is_usable = None
    if not is_usable:
        raise InvalidInput(f"no address that can be notified: {our_base_url}", code="notification_url")
    if not token or not all("!" <= letter <= "~" for letter in token):
        raise InvalidInput("a token is of visible ASCII characters", code="notification_token")
    # A URL is a template there too, so braces must not be seen in it; and the values of headers are decoded twice.
    path = quote(base.path.rstrip("/") + PATH, safe="/%")
    key = quote(f"Bearer {token}".replace("%", "%25"), safe="")
    shape = f":version=&:type=&:attachments=&:title=&:message=payload&+Authorization={key}"
    url = f"{schemes[base.scheme]}://{base.netloc}{path}?{shape}&retry={RETRIES}&wait={WAIT_S}&rto={READ_S}"
    if len(url) > MAX_URL_CHARACTERS:
        raise InvalidInput(
            f"longer than the {MAX_URL_CHARACTERS} characters of a notification URL", code="notification_url"
        )
    return url
