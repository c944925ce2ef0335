"""Row 16: from a page's event to its 202, at 200 a second whatever the answers; peer: a bare route with one INSERT.

    python -m tests.bench.intake [seconds] [sqlite | postgresql]

Each event is a page of about 6 KB of Markdown, one in ten with 100 KB of HTML; all belong to one crawl. Times are from
the moment at which an event was due. No worker runs: indexing on the same cores would be measured instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.rig import DATABASES, Rig, rig
from tests.bench.table import Row, markdown, quantile
from tests.support.processes import Process, free_port, running
from tests.support.sender import PATH, SECRET, Sender, page_event
from tests.support.stack import REPOSITORY

RATE = 200.0
SECONDS = 20.0
MAX_P99_MS = 50.0
PATIENCE_S = 120.0
SENTENCES, HTML_BYTES, WITH_HTML = 70, 100_000, 10


@dataclass(frozen=True)
class Timing:
    """Milliseconds of each answer, and how much of a core the server's process took for an event.

    While other programs load the machine, the CPU time is the better measure.
    """

    took: list[float]
    cpu_ms: float

    def p(self, share: float) -> float:
        return quantile(self.took, share)

    def summary(self) -> str:
        times = f"p50 {self.p(0.5):.1f} ms, p99 {self.p(0.99):.1f} ms, max {max(self.took):.0f} ms"
        return f"{times}, {self.cpu_ms:.1f} ms of CPU time each"


def fire(server: Process, port: int, crawl: str, seconds: float, path: str = PATH) -> Timing:
    """Send the events to a warm server and time them; a later try counts from the moment its event was due."""
    warm = [page_event(f"{crawl}-warm", n, SENTENCES) for n in range(50)]
    Sender(port, warm, 50, path).start().join(60)
    events = [page_event(crawl, n, SENTENCES, 0 if n % WITH_HTML else HTML_BYTES) for n in range(int(RATE * seconds))]
    before = _cpu_ms(server)
    # One that gave up and sent again would measure what its own impatience costs.
    sent = Sender(port, events, RATE, path, patience_s=PATIENCE_S).start().join(seconds + PATIENCE_S)
    cpu_ms = (_cpu_ms(server) - before) / len(events)
    again = [(delivery.tries, delivery.refusals) for delivery in sent if delivery.tries > 1]
    if again:
        print(f"{crawl}: {len(again)} events were sent again; tries and refusals of the first: {again[:3]}")
    return Timing([delivery.took_ms for delivery in sent], cpu_ms)


def _cpu_ms(process: Process) -> float:
    """Return the CPU time of the process so far, as Linux counts it."""
    words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def bare(here: Rig) -> Iterator[tuple[Process, int]]:
    """The peer and its port, on a database of the same kind."""
    port = free_port()
    url = here.env["MILLRACE_DATABASE_URL"].replace("bench.db", "bare.db")
    words = ["-m", "uvicorn", "tests.bench.bare_intake:app", "--port", str(port), "--no-access-log"]
    env = {**here.env, "BARE_DATABASE_URL": url}
    process = Process("bare", [sys.executable, *words], log=here.folder / "bare.log", env=env, cwd=REPOSITORY)
    with running(process):
        process.wait_for_port(port)
        yield process, port


def measure(kind: str, seconds: float) -> dict[str, Timing]:
    """Here with Redis, here without it, and at the peer."""
    with rig(kind, {"MILLRACE_WEBHOOK_SECRET": SECRET}) as here:
        here.stack.start(workers=0, relay=True)
        api, port = here.stack.api, here.stack.port
        assert api is not None
        timings = {"up": fire(api, port, "c-up", seconds)}
        here.redis.kill()
        timings["down"] = fire(api, port, "c-down", seconds)
        here.stack.end()
        with bare(here) as (peer, port):
            timings["bare"] = fire(peer, port, "c-bare", seconds, "/")
    return timings


def rows(seconds: float = SECONDS, kinds: tuple[str, ...] = DATABASES) -> list[Row]:
    made = []
    for kind in kinds:
        timings = measure(kind, seconds)
        peer = timings["bare"]
        for label, ours in (("", timings["up"]), (", Redis down", timings["down"])):
            times = f"{ours.p(0.5) / peer.p(0.5):.1f} x at p50, {ours.p(0.99) / peer.p(0.99):.1f} x at p99"
            made.append(
                Row(
                    "16",
                    f"intake webhook → 202 at {RATE:.0f}/s, {kind}{label}",
                    f"{ours.summary()}: {times}, {ours.cpu_ms / peer.cpu_ms:.1f} x the CPU time",
                    f"a bare route, one INSERT: {peer.summary()}",
                    f"p99 ≤ {MAX_P99_MS:.0f} ms",
                    ours.p(0.99) <= MAX_P99_MS,
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
