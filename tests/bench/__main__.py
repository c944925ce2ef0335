"""Every benchmark, or those named, one after the other; prints the table and the machine it was made on.

python -m tests.bench [throughput | resilience | progress_latency | sse_clients | query_latency | quality | …]
"""

from __future__ import annotations

import importlib
import sys
import traceback

from tests.bench.table import Row, machine, markdown

MODULES = (
    "throughput",
    "resilience",
    "progress_latency",
    "sse_clients",
    "query_latency",
    "engines",
    "indexing",
    "intake",
    "schedules",
    "explain",
    "families",
    "fairness",
    "quality",
    "idle",
    "fresh_start",
)


def main() -> None:
    names = sys.argv[1:] or MODULES
    rows: list[Row] = []
    broken = []
    for name in names:
        try:
            rows += importlib.import_module(f"tests.bench.{name}").rows()
        except (Exception, SystemExit):  # noqa: BLE001  one row that cannot be had here must not cost the others
            traceback.print_exc()
            broken.append(name)
    print(f"\nMeasured on {machine()}.\n\n{markdown(rows)}")
    if broken:
        sys.exit(f"could not be measured: {', '.join(broken)}")


if __name__ == "__main__":
    main()
