"""Spans from a request to its job to the job's calls, and reports of bugs, at receivers outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.site import FakeSite, page, site
from tests.fakes.telemetry import OtlpReceiver, ReceivedSpan, SentryReceiver
from tests.journeys.conftest import MODULES, Ledger
from tests.support.kinds import Fail
from tests.support.stack import Stack
from tests.support.waiting import wait_until

__all__ = ["site"]

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(180),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),  # which database makes no difference here
]
SERVER, CLIENT, CONSUMER = 2, 3, 5


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    with OtlpReceiver().running() as receiver:
        yield receiver


@pytest.fixture
def sentry() -> Iterator[SentryReceiver]:
    with SentryReceiver().running() as receiver:
        yield receiver


def test_spans_lead_from_a_request_to_its_job_to_its_calls(
    stack: Stack, ledger: Ledger, otlp: OtlpReceiver, site: FakeSite
) -> None:
    site.pages["/sluice"] = page(b"<title>Sluice</title><main><p>A sluice stops the water of a mill.</p></main>")
    stack.env |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.url, "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=tests", "MILLRACE_FETCH_PRIVATE": "true",
        "MILLRACE_FETCH_JAVASCRIPT": "off", "MILLRACE_FETCH_ROBOTS": "off",
    }  # fmt: skip
    stack.start(workers=1)
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {"url": f"{site.url}/sluice?token=hidden"}
    site.pages["/sluice?token=hidden"] = site.pages["/sluice"]
    started = stack.post("/api/documents", body, headers={"traceparent": caller})
    ledger.wait(started.json()["id"], "succeeded", timeout_s=60)

    def complete() -> list[ReceivedSpan]:
        spans = [span for span in otlp.spans if span.trace_id == caller[3:35]]
        return spans if {span.kind for span in spans} == {SERVER, CLIENT, CONSUMER} else []

    spans = wait_until(complete, timeout_s=30, what="spans of request, job and call")
    [request] = [span for span in spans if span.kind == SERVER]
    job = next(span for span in spans if span.attributes.get("job.id") == started.json()["id"])
    call = next(span for span in spans if span.kind == CLIENT)
    assert (request.name, request.parent_id) == ("POST /api/documents", caller[36:52])
    assert request.attributes["http.response.status_code"] == 202
    assert (job.parent_id, job.attributes["job.outcome"]) == (request.span_id, "succeeded")
    assert call.parent_id in {span.span_id for span in spans if span.kind == CONSUMER}
    assert call.attributes["url.full"] == f"{site.url}/sluice", "a query may hold secrets"
    sent = {visit.headers.get("traceparent", "") for visit in site.requests}
    assert f"00-{call.trace_id}-{call.span_id}-01" in sent
    assert job.resource["deployment.environment"] == "tests"
    assert (request.resource["millrace.role"], job.resource["millrace.role"]) == ("api", "worker")


def test_a_failed_job_is_a_failed_span_and_a_sampler_that_says_no_sends_none(
    stack: Stack, ledger: Ledger, otlp: OtlpReceiver
) -> None:
    stack.env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    stack.env["MILLRACE_MODULES"] = MODULES
    stack.start(workers=1, api=False)
    ledger.wait(ledger.enqueue(Fail(error="bug"), max_tries=1), "failed", timeout_s=60)
    wait_until(lambda: [span for span in otlp.spans if span.has_failed], timeout_s=30, what="the failed span")
    stack.workers[0].term()
    assert stack.workers[0].wait(30) == 0
    otlp.requests.clear()
    stack.env["OTEL_TRACES_SAMPLER"] = "always_off"
    stack.add_worker()
    ledger.wait(ledger.enqueue(Fail(error="bug"), max_tries=1), "failed", timeout_s=60)
    stack.workers[1].term()
    assert stack.workers[1].wait(30) == 0
    assert otlp.spans == []


def test_a_bug_in_a_job_is_reported_to_sentry(stack: Stack, ledger: Ledger, sentry: SentryReceiver) -> None:
    stack.env |= {"SENTRY_DSN": sentry.dsn, "SENTRY_ENVIRONMENT": "tests", "MILLRACE_MODULES": MODULES}
    stack.start(workers=1, api=False)
    job_id = ledger.enqueue(Fail(error="bug"), max_tries=1)
    ledger.wait(job_id, "failed", timeout_s=60)

    def reported() -> list[dict[str, object]]:
        return [event for event in sentry.events if dict(event.get("tags") or {}).get("job_id") == job_id]

    [event, *_] = wait_until(reported, timeout_s=30, what="a report")
    assert event["environment"] == "tests"
    assert event["exception"]
    assert stack.secret not in str(sentry.events)
