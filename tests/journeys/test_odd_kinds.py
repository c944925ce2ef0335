"""Kinds with mistakes in them: each of their jobs ends with a reason, and nothing keeps a worker from stopping."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.stack import Stack

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),  # the end of an attempt is tested on both
]

STARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bad delay": ("odd.error", {"name": "delay"}),
    "bad syntax error": ("odd.error", {"name": "syntax"}),
    "bad delay in a child": ("odd.error_in_sandbox", {"name": "delay"}),
    "bad syntax error in a child": ("odd.error_in_sandbox", {"name": "syntax"}),
    "deep": ("odd.deep_result", {"levels": 300}),
    "deepest": ("odd.deep_result", {"levels": 100}),
    "alias": ("odd.alias", {"orderId": 7}),
    "computed": ("odd.computed", {"net": "1"}),
}


@pytest.fixture
def odd_kinds_stack(stack: Stack) -> Stack:
    stack.env["MILLRACE_MODULES"] = "tests.support.odd_kinds"
    return stack.start()


def test_jobs_end_and_workers_stop_after_any_error_or_result(odd_kinds_stack: Stack) -> None:
    started = {}
    for name, (kind, payload) in STARTS.items():
        answer = odd_kinds_stack.post("/api/jobs", {"kind": kind, "payload": payload})
        assert answer.status_code == 202, answer.text
        started[name] = answer.json()["id"]
    ended = {name: odd_kinds_stack.wait_for_job(job_id, "succeeded", "failed") for name, job_id in started.items()}
    for name in ("bad delay", "bad delay in a child"):
        assert (ended[name]["state"], ended[name]["error"]["message"]) == ("failed", "slow down")
    for name in ("bad syntax error", "bad syntax error in a child"):
        assert (ended[name]["error"]["type"], ended[name]["state"]) == ("SyntaxError", "failed")
        assert "bad json5" in ended[name]["error"]["message"]
    assert ended["deep"]["error"]["code"] == "result_depth"
    assert (ended["alias"]["state"], ended["alias"]["result"]) == ("succeeded", {"order": 7})
    assert (ended["computed"]["state"], ended["computed"]["result"]) == ("succeeded", {"gross": "1.19"})
    deepest, levels = ended["deepest"]["result"], 1
    while deepest:
        deepest, levels = deepest["x"], levels + 1
    assert levels == 100
    for worker in odd_kinds_stack.workers:
        began = time.monotonic()
        worker.stop()
        assert time.monotonic() - began < 10


REFUSED = [
    ("odd.ratio", '{"ratio": 1e999}', "payload", "ratio: Input should be a finite number"),
    ("odd.ratio", '{"extra": NaN}', "payload", "NaN is not a JSON number"),
    ("odd.ratio", '{"extra": ' + "[" * 300 + "]" * 300 + "}", "payload_depth", "more than 100 levels"),
    ("odd.ratio", '{"extra": ' + "[" * 101 + "]" * 101 + "}", "payload_depth", "more than 100 levels"),
    ("odd.alias", '{"orderID": 7}', "payload", "orderId: Field required; orderID: Extra inputs"),
]


def test_payload_that_cannot_load_is_refused_by_the_api(odd_kinds_stack: Stack) -> None:
    for kind, payload, code, message in REFUSED:
        body = f'{{"kind": "{kind}", "payload": {payload}}}'
        answer = odd_kinds_stack.client.post("/api/jobs", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
        assert message in answer.json()["detail"]
