"""Files that a closed sandbox has left in the folder of its call, read with distrust."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from app.core.errors import SandboxCrashed


def is_plain_file(path: Path) -> bool:
    """Return True for a file that is no link: a link could name any file of the host."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def read_text(path: Path) -> str:
    """Return the text of a file that the sandbox has written. Raises SandboxCrashed if it is anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="utf-8") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return file.read()
    except (OSError, ValueError) as error:
        raise SandboxCrashed(f"the sandbox left no readable {path.name}: {error}") from error
    raise SandboxCrashed(f"the sandbox left a {path.name} that is not a file")
