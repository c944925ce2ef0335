"""`millrace WORD`: one word a process, the same in every deployment; all other words are for people (app/cli).

Each word imports only the modules that it needs, by name: `millrace --help` must not load SQL or HTTP.
"""

from __future__ import annotations

import importlib
import sys

PROCESSES = ("api", "worker", "scheduler", "relay")
# Words that containers and supervisord use. `healthy` and `minder` are the old words, for one release.
INTERNAL = {
    "healthcheck": "healthcheck",
    "supervised": "supervised",
    "supervisor-listener": "supervisor_listener",
    "healthy": "healthcheck",
    "minder": "supervisor_listener",
}


def main() -> None:
    """Run the word on the command line; app/cli/exit_codes.py lists the exit codes."""
    words = sys.argv[1:]
    if words and words[0] in PROCESSES and not {"-h", "--help"} & set(words[1:]):
        run = importlib.import_module("app.cli.processes.run").run
        importlib.import_module("app.core.process").leave_after(lambda: run(words[0], words[1:]))
    if words and words[0] in INTERNAL:
        sys.exit(importlib.import_module(f"app.cli.processes.{INTERNAL[words[0]]}").run(words[1:]))
    importlib.import_module("app.cli.main").main()


if __name__ == "__main__":
    main()
