"""A2: an encoding that only Python knows stops neither a process nor a job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.documents.extract import mail
from app.sources.fetching.page_text import fetch
from tests.fakes.server import Response
from tests.fakes.site import FakeSite, site
from tests.support.databases import SettingsEnv
from tests.support.problems import assert_problem
from tests.unit.api.conftest import Api, lite_api

__all__ = ["lite_api", "site"]

# Decoding this as punycode takes minutes: each of its characters is inserted into a text of all before it.
SLOW = b"a" * 300_000 + b"-" + b"zzzzz" * 300_000
LABELS = (
    "punycode",
    "Punycode---",
    "idna",
    "utf-7",
    "unicode_escape",
    "raw_unicode_escape",
    "rot13",
    "zip",
    "undefined",
)
# Far above what honest work takes on a busy machine, far below what the attack took.
MAX_S = 10.0


@pytest.mark.parametrize("declare", ["header", "meta", "xml"])
@pytest.mark.parametrize("label", LABELS)
def test_a_page_in_an_encoding_of_python_alone_is_read_at_once(
    site: FakeSite, settings_env: SettingsEnv, label: str, declare: str
) -> None:
    settings_env(fetch_private="true")
    head = {
        "header": b"",
        "meta": f"<meta charset='{label}'>".encode(),
        "xml": f"<?xml version='1.0' encoding='{label}'?>".encode(),
    }[declare]
    media_type = f"text/html; charset={label}" if declare == "header" else "text/html"
    site.pages["/"] = Response(head + SLOW, 200, {"content-type": media_type})
    began = time.process_time()
    page = asyncio.run(fetch(f"{site.url}/"))
    assert page.text.encode() == head + SLOW
    assert time.process_time() - began < MAX_S


def test_a_large_page_leaves_the_loop_free(site: FakeSite, settings_env: SettingsEnv) -> None:
    """Other tasks of the process go on while 10 MB in a slow encoding are decoded."""
    settings_env(fetch_private="true", fetch_max_bytes=12_000_000)
    body = "日本語のページ".encode("euc_jp") * 700_000
    site.pages["/"] = Response(body, 200, {"content-type": "text/html; charset=euc-jp"})

    async def measure() -> float:
        longest_s, task = 0.0, asyncio.create_task(fetch(f"{site.url}/"))
        while not task.done():
            began = time.thread_time()  # of this thread alone: other processes do not count
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.thread_time() - began)
        assert len((await task).text) == 700_000 * 7
        return longest_s

    assert asyncio.run(measure()) < 0.15


@pytest.mark.parametrize("label", LABELS)
def test_a_form_in_an_encoding_of_python_alone_is_refused(lite_api: Api, label: str) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="title"\r\n\r\n' + SLOW[:900_000] + b"\r\n--b--\r\n"
    headers = {"content-type": f"multipart/form-data; boundary=b; charset={label}"}
    began = time.process_time()
    assert_problem(lite_api.client.post("/api/documents/upload", content=body, headers=headers), 422, "multipart")
    assert time.process_time() - began < MAX_S
    assert httpx.get(f"{lite_api.url}/livez", trust_env=False, timeout=5).status_code == 200


def _in_body(label: str) -> bytes:
    return f"Subject: x\r\nContent-Type: text/plain; charset={label}\r\n\r\n".encode() + SLOW


def _in_subject(label: str) -> bytes:
    return b"Subject: =?" + label.encode() + b"?q?" + SLOW + b"?=\r\n\r\nhello"


def _in_attachment(label: str) -> bytes:
    part = f"--b\r\nContent-Type: text/plain; charset={label}\r\n".encode() + b"Content-Disposition: attachment"
    part += f"; filename*={label}''".encode() + SLOW + b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xff" + SLOW
    return b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + part + b"\r\n--b--\r\n"


def _in_message(label: str) -> bytes:
    head = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
    return head + _in_subject(label) + b"\r\n--b--\r\n"


@pytest.mark.parametrize("attack", [_in_body, _in_subject, _in_attachment, _in_message])
@pytest.mark.parametrize("label", ["punycode", "idna", "unicode_escape"])
def test_a_mail_in_an_encoding_of_python_alone_is_read_at_once(
    tmp_path: Path, label: str, attack: Callable[[str], bytes]
) -> None:
    path = tmp_path / "letter.eml"
    path.write_bytes(attack(label))
    began = time.process_time()
    mail.extract(path)
    assert time.process_time() - began < MAX_S
