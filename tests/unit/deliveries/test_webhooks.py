"""Webhooks at the end of a job: the request, and the effect of the receiver's answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.core import clock
from app.core.db import database
from app.core.errors import InvalidInput, Rejected, Unavailable
from app.core.ids import uuid7
from app.deliveries.signing import secrets_of, signature
from app.deliveries.webhooks import check_url, deliver
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.end_webhooks import DeliverWebhook
from app.jobs.worker.outcome import judge
from tests.support.databases import SettingsEnv
from tests.support.processes import free_port
from tests.support.webhook_receiver import Receiver, receiver
from tests.unit.jobs.conftest import Ledger, ledger_databases, ledger_of

__all__ = ["ledger_databases", "ledger_of", "receiver"]

AT = "2026-11-22T09:00:00.000Z"


@pytest.fixture
def ledger(sqlite_url: str, settings_env: SettingsEnv) -> Ledger:
    settings_env(database_url=sqlite_url, webhook_private=True)
    return Ledger(database())


def claim_of(tries: int = 0) -> Claim:
    now = clock.now()
    values = dict.fromkeys(Claim._fields) | {"id": uuid7(), "fence": 1, "tenant": "default", "tries": tries}
    return Claim(**values | {"kind": DeliverWebhook.kind, "max_tries": 10, "due_at": now, "claimed_at": now})  # type: ignore[arg-type]


def ended(ledger: Ledger, **values: Any) -> str:
    return ledger.put(**{"state": "succeeded", "finished_at": clock.now(), "result": {"pages": 3}, **values})


def send(url: str, job_id: str, state: str = "succeeded", claim: Claim | None = None) -> dict[str, Any]:
    return asyncio.run(deliver(DeliverWebhook(job_id=job_id, url=url, state=state, at=AT), claim or claim_of()))


def test_the_event_is_sent_and_can_be_verified(ledger: Ledger, receiver: Receiver) -> None:
    job_id = ended(ledger, document_id=7)
    claim = claim_of()
    assert send(receiver.url, job_id, claim=claim)["status"] == 204
    ((headers, body),) = receiver.got
    event = json.loads(body)
    assert (event["type"], event["timestamp"]) == ("job.succeeded", AT)
    assert (event["data"]["id"], event["data"]["state"], event["data"]["result"]) == (job_id, "succeeded", {"pages": 3})
    assert (event["data"]["document_id"], event["data"]["link"]) == ("7", f"/api/jobs/{job_id}")
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == f"msg_{claim.id.replace('-', '')}"
    timestamp = int(headers["webhook-timestamp"])
    assert abs(timestamp - clock.now().timestamp()) < 60
    assert headers["webhook-signature"] == signature(secrets_of("default"), headers["webhook-id"], timestamp, body)
    assert "authorization" not in headers


def test_retry_sends_the_same_message(ledger: Ledger, receiver: Receiver) -> None:
    job_id, claim = ended(ledger), claim_of()
    for _ in range(2):
        send(receiver.url, job_id, claim=claim)
    (first, body), (second, again) = receiver.got
    assert (first["webhook-id"], body) == (second["webhook-id"], again)


def test_body_has_the_recorded_end_after_a_retry_or_a_sweep(ledger: Ledger, receiver: Receiver) -> None:
    send(receiver.url, ended(ledger, state="queued", result=None), state="failed")
    gone = uuid7()
    send(receiver.url, gone, state="failed")
    retried, swept = (json.loads(body) for _, body in receiver.got)
    assert (retried["type"], retried["data"]["state"], retried["data"]["finished_at"]) == ("job.failed", "failed", AT)
    assert swept["data"] == {"id": gone, "state": "failed", "finished_at": AT, "link": f"/api/jobs/{gone}"}


def test_job_of_another_tenant_is_not_sent(ledger: Ledger, receiver: Receiver) -> None:
    send(receiver.url, ended(ledger, tenant="other", result={"secret": 1}))
    assert "result" not in json.loads(receiver.got[0][1])["data"]


def test_large_result_is_replaced_by_a_link(ledger: Ledger, receiver: Receiver) -> None:
    send(receiver.url, ended(ledger, result={"text": "x" * 50_000}))
    ((_, body),) = receiver.got
    assert (json.loads(body)["data"]["result"], len(body) < 20_000) == (None, True)


@pytest.mark.parametrize(
    ("status", "headers", "kind", "delay_s"),
    [
        (410, {}, Rejected, None),
        (400, {}, Unavailable, None),
        (500, {"retry-after": "7"}, Unavailable, None),
        (429, {"retry-after": "77"}, Unavailable, 77.0),
        (503, {"retry-after": "999999999"}, Unavailable, 86_400.0),
        (302, {"location": "http://127.0.0.1:1/"}, Unavailable, None),
    ],
)
def test_status_of_the_answer_decides_on_a_retry(
    ledger: Ledger,
    receiver: Receiver,
    status: int,
    headers: dict[str, str],
    kind: type[Exception],
    delay_s: float | None,
) -> None:
    receiver.status, receiver.headers, receiver.body = status, headers, b"no " * 5000
    with pytest.raises(kind, match=str(status)) as caught:
        send(receiver.url, ended(ledger))
    assert getattr(caught.value, "retry_after_s", None) == delay_s
    assert len(receiver.got) == 1
    assert len(str(caught.value)) < 500
    verdict = judge(claim_of(), caught.value)
    assert verdict.state == ("failed" if kind is Rejected else "retrying")


def test_unreachable_receiver_is_retried(ledger: Ledger) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        send(f"http://127.0.0.1:{free_port()}/", ended(ledger))


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:9/", "https://10.0.0.1/", "https://[::1]/", "https://169.254.169.254/"]
)
def test_private_addresses_are_refused_for_good(ledger: Ledger, settings_env: SettingsEnv, url: str) -> None:
    settings_env(webhook_private=False)
    with pytest.raises(Rejected, match="not on the public internet"):
        send(url, uuid7())


@pytest.mark.parametrize(
    "wrong",
    [
        "http://shop.example/", "ftp://shop.example/", "shop.example", "https://", "https://a:b/", "https://[/", "",
        "https://x/\n", "https://shop.example/" + "x" * 2000,
    ],
)  # fmt: skip
def test_invalid_url_is_refused(settings_env: SettingsEnv, wrong: str) -> None:
    with pytest.raises(InvalidInput, match="webhook_url"):
        check_url(wrong)


def test_plain_http_is_for_private_networks(settings_env: SettingsEnv) -> None:
    settings_env(webhook_private=True)
    assert check_url("http://shop.internal/hook").hostname == "shop.internal"
