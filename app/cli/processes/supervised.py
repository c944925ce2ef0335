"""`millrace supervised PROGRAM...`: become a program that ends when its supervisord ends.

supervisord that is killed stops none of its programs. Where the kernel supports it, each program asks for a SIGTERM at
the death of its parent; the request stays in force when the process becomes another program.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

_PR_SET_PDEATHSIG = 1


def run(command: list[str]) -> NoReturn:
    """Replace this process by the command."""
    end_with_parent()
    os.execvp(command[0], command)


def end_with_parent() -> None:
    """Request SIGTERM at the death of the parent, where the kernel supports it."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
