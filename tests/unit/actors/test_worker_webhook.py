"""The end of a job reaches its webhook through real processes, and a receiver that was down hears of it later."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from app.core.db import database
from app.deliveries.signing import secrets_of, signature
from app.jobs.ledger.edit import run_now
from app.jobs.ledger.end_webhooks import DeliverWebhook
from app.jobs.models import JobRow
from tests.support.kinds import Noop
from tests.support.waiting import wait_until
from tests.support.webhook_receiver import Receiver, receiver
from tests.unit.actors.conftest import Plant

__all__ = ["receiver"]

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


@pytest.mark.parametrize("plant", ["postgresql"], indirect=True)
def test_webhook_of_an_end_is_retried_until_accepted(plant: Plant, receiver: Receiver) -> None:
    plant.env["MILLRACE_WEBHOOK_PRIVATE"] = "true"
    receiver.status = 500
    plant.worker()
    job_id = plant.enqueue(Noop(), webhook_url=receiver.url)
    plant.until(job_id, "succeeded")

    query = sa.select(JobRow.id).where(JobRow.kind == DeliverWebhook.kind)
    delivery_id = str(
        wait_until(lambda: database().read(lambda session: session.scalar(query)), what="the delivery's row")
    )
    row = plant.until(delivery_id, "retrying")
    assert (row.error_type, row.tries) == ("Unavailable", 1)
    receiver.status = 200
    database().transaction(run_now, "default", delivery_id)
    row = plant.until(delivery_id, "succeeded")
    assert row.result is not None
    assert row.result["status"] == 200
    (_, first), (headers, body) = receiver.got
    assert first == body
    assert json.loads(body)["data"]["id"] == job_id
    expected_signature = signature(
        secrets_of("default"), headers["webhook-id"], int(headers["webhook-timestamp"]), body
    )
    assert headers["webhook-signature"] == expected_signature
