"""Row 16: from a page's event to its 202, at 200 a second whatever the answers, beside a bare route with one INSERT.

    python -m tests.bench.intake [seconds] [sqlite | postgresql]

Each event is a page of about 6 KB of Markdown, one in ten with 100 KB of HTML; all belong to one crawl. Times are from
the moment at which an event was due. No worker runs: indexing on the same cores would be measured instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app.core.http import client
from tests.bench.rig import DATABASES, Rig, rig
from tests.bench.table import Row, markdown, quantile
from tests.support.processes import Process, free_port, running
from tests.support.sender import PATH, SECRET, Sender, Sent, page_event
from tests.support.stack import REPOSITORY
from tests.support.waiting import wait_until

RATE = 200.0
SECONDS = 20.0
MOST_MS = 50.0
PATIENCE_S = 120.0
SENTENCES, HTML_BYTES, WITH_HTML = 70, 100_000, 10


def fire(port: int, crawl: str, seconds: float, path: str = PATH) -> list[Sent]:
    """What became of each event, once all are taken; a later try counts from when its event was due."""
    warm = [page_event(f"{crawl}-warm", n, SENTENCES) for n in range(50)]
    Sender(port, warm, 50, path).start().join(60)
    events = [page_event(crawl, n, SENTENCES, 0 if n % WITH_HTML else HTML_BYTES) for n in range(int(RATE * seconds))]
    # One that gave up and sent again would measure what its own impatience costs.
    sent = Sender(port, events, RATE, path, patience_s=PATIENCE_S).start().join(seconds + PATIENCE_S)
    again = [(one.tries, one.refusals) for one in sent if one.tries > 1]
    if again:
        print(f"{crawl}: {len(again)} events were sent again; tries and refusals of the first: {again[:3]}")
    return sent


@contextmanager
def bare(here: Rig) -> Iterator[int]:
    """The port of the peer, on a database of the same kind."""
    port = free_port()
    url = here.env["MILLRACE_DATABASE_URL"].replace("bench.db", "bare.db")
    words = ["-m", "uvicorn", "tests.bench.bare_intake:app", "--port", str(port), "--no-access-log"]
    env = {**here.env, "BARE_DATABASE_URL": url}
    process = Process("bare", [sys.executable, *words], log=here.folder / "bare.log", env=env, cwd=REPOSITORY)
    with running(process):
        process.wait_for_port(port)
        yield port


def measure(kind: str, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each event: here with Redis, here without it, and at the peer."""
    with rig(kind, {"MILLRACE_WEBHOOK_SECRET": SECRET}) as here:
        here.stack.start(workers=0, relay=True)
        wait_until(lambda: client(5).get(f"{here.stack.url}/livez").status_code == 200, what="the api")
        found = {"up": [one.took_ms for one in fire(here.stack.port, "c-up", seconds)]}
        here.redis.kill()
        found["down"] = [one.took_ms for one in fire(here.stack.port, "c-down", seconds)]
        here.stack.end()
        with bare(here) as port:
            found["bare"] = [one.took_ms for one in fire(port, "c-bare", seconds, "/")]
    return found


def told(took: list[float]) -> str:
    return f"p50 {quantile(took, 0.5):.1f} ms, p99 {quantile(took, 0.99):.1f} ms, max {max(took):.0f} ms"


def rows(seconds: float = SECONDS, kinds: tuple[str, ...] = DATABASES) -> list[Row]:
    made = []
    for kind in kinds:
        found = measure(kind, seconds)
        peer = quantile(found["bare"], 0.99)
        for label, took in (("", found["up"]), (", Redis down", found["down"])):
            p99 = quantile(took, 0.99)
            times = quantile(took, 0.5) / quantile(found["bare"], 0.5)
            made.append(
                Row(
                    "16",
                    f"intake webhook → 202 at {RATE:.0f}/s, {kind}{label}",
                    f"{told(took)}: {times:.1f} x at p50, {p99 / peer:.1f} x at p99",
                    f"a bare route, one INSERT: {told(found['bare'])}",
                    f"p99 ≤ {MOST_MS:.0f} ms",
                    p99 <= MOST_MS,
                )
            )
    return made


def main() -> None:
    words = sys.argv[1:]
    kinds = tuple(word for word in words if word in DATABASES) or DATABASES
    seconds = next((float(word) for word in words if word not in DATABASES), SECONDS)
    print(markdown(rows(seconds, kinds)))


if __name__ == "__main__":
    main()
