"""Row 8: from `progress.report()` in a worker to the event at the browser; peer: a bare PUBLISH and subscriber.

python -m tests.bench.progress_latency [reports]
"""

from __future__ import annotations

import sys
import threading
import time

from app.core.db import database
from app.jobs.ledger.enqueue import enqueue
from tests.bench.progress_kinds import Speak
from tests.bench.rig import DATABASES, Rig, rig
from tests.bench.table import Row, markdown, quantile
from tests.support.waiting import wait_until
from tests.unit.api.streams.following import follow

REPORTS = 300


def ours(here: Rig, reports: int) -> list[float]:
    """Milliseconds of each report that a browser saw."""
    job = database().transaction(enqueue, Speak(times=reports), tenant="default")
    late = []
    with follow(here.stack.client, job.id) as stream:
        for event in stream:
            now = time.time()
            if event.name == "progress" and event.data["message"]:
                late.append((now - float(event.data["message"])) * 1000)
    assert event.name == "end", event
    assert event.data["state"] == "succeeded", event
    return late[5:]


def bare(here: Rig, reports: int) -> list[float]:
    """Milliseconds from PUBLISH to a subscribed thread."""
    late: list[float] = []
    with here.redis.client() as sender, here.redis.client() as listener, listener.pubsub() as subscription:
        subscription.subscribe("bare")
        subscription.get_message(timeout=2)

        def listen() -> None:
            for message in subscription.listen():
                late.append((time.time() - float(message["data"])) * 1000)
                if len(late) == reports:
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        for _ in range(reports):
            time.sleep(0.02)
            sender.publish("bare", repr(time.time()))
        thread.join(10)
    return late


def rows(reports: int = REPORTS) -> list[Row]:
    results = []
    for kind in DATABASES:
        with rig(kind, {"MILLRACE_MODULES": "tests.bench.progress_kinds"}) as here:
            here.stack.start(workers=1, relay=True)
            wait_until(lambda: here.stack.client.get("/readyz").status_code == 200, what="the api to be ready")
            late, beside = ours(here, reports), bare(here, reports)
        p50, p99 = quantile(late, 0.5), quantile(late, 0.99)
        results.append(
            Row(
                "8",
                f"progress report to browser, {kind}",
                f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
                f"bare PUBLISH to a subscriber p50 {quantile(beside, 0.5):.1f} ms, p99 {quantile(beside, 0.99):.1f} ms",
                "p50 ≤ 5 ms, p99 ≤ 25 ms",
                p50 <= 5 and p99 <= 25,
            )
        )
    return results


def main() -> None:
    print(markdown(rows(*(int(word) for word in sys.argv[1:]))))


if __name__ == "__main__":
    main()
