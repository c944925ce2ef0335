"""Exit codes of every command. They are stable, so scripts can branch on them."""

from __future__ import annotations

OK = 0
FAILED = 1  # the request failed: a failed job, a doctor with a failed check
USAGE = 2  # wrong words, or a wrong setting
UNREACHABLE = 3  # no server answers at MILLRACE_URL
NOT_FOUND = 4  # no such job or document
TIMEOUT = 5  # the job goes on, but did not end within --timeout
NOT_ALLOWED = 6  # the server does not accept the key
INTERRUPTED = 130  # Ctrl-C

EXIT_CODES_HELP = (
    "Exit codes: 0 done, 1 it failed, 2 wrong use or settings, 3 no server answers, 4 not found, "
    "5 not done in time, 6 key not accepted, 130 interrupted."
)


class CliExit(Exception):
    """End the command with `code`; `message` is one sentence for stderr.

    `server` is the address that was asked, and `source` the profile or installation that named it.
    """

    def __init__(self, code: int, message: str = "", *, server: str = "", source: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.server = server
        self.source = source
