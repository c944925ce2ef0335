"""`millrace WORD`: one word a process, the same in every deployment; all other words are for people (app/cli).

Only what a word needs is imported, by name: `millrace --help` must not pay for SQL or HTTP.
"""

from __future__ import annotations

import importlib
import sys

PROCESSES = ("api", "worker", "scheduler", "relay")
# Words of containers and of supervisord, not of people.
INSIDE = {"minder": "supervisor_listener", "healthy": "healthcheck"}


def main() -> None:
    """Run the word on the command line; the exit codes are those of app/cli/exit_codes.py."""
    words = sys.argv[1:]
    if words and words[0] in PROCESSES and not {"-h", "--help"} & set(words[1:]):
        sys.exit(importlib.import_module("app.cli.processes.run").run(words[0], words[1:]))
    if words and words[0] in INSIDE:
        sys.exit(importlib.import_module(f"app.cli.processes.{INSIDE[words[0]]}").run(words[1:]))
    importlib.import_module("app.cli.main").main()


if __name__ == "__main__":
    main()
