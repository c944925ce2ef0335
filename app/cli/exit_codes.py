"""Exit codes: stable, for scripts that ask what happened."""

from __future__ import annotations

OK = 0
FAILED = 1  # what was asked for was tried and failed: a failed job, a doctor that found something
BAD_USE = 2  # wrong words, or a setting that is wrong
UNREACHABLE = 3  # no server answers at MILLRACE_URL
NOT_FOUND = 4  # no such job or document
TIMEOUT = 5  # it goes on, but was not done within --timeout
NOT_ALLOWED = 6  # the server does not accept our secret
INTERRUPTED = 130  # Ctrl-C
# What help says of them.
EXITS = (
    "Exit codes: 0 done, 1 it failed, 2 wrong use or settings, 3 no server answers, 4 not found, "
    "5 not done in time, 6 secret not accepted, 130 interrupted."
)


class Quit(Exception):
    """End the command with this code; `message` is one sentence for stderr."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
