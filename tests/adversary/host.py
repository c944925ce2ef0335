"""A host of sandboxes as a program: runs the calls that standard input lists, and prints their outcomes.

It holds a secret in its environment. With `bare` it gives up all capabilities first, as in a container without any.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.core.errors import AppError
from app.core.process import hide_memory
from app.jobs.sandbox import capabilities, process_pool
from app.jobs.sandbox.box import Access
from app.jobs.sandbox.call import SandboxCall
from app.jobs.sandbox.protocol import SandboxFailed


def main() -> None:
    hide_memory()
    if "bare" in sys.argv:
        capabilities.drop()
    print(json.dumps([_outcome(**call) for call in json.load(sys.stdin)]))
    process_pool.stop_pool()


def _outcome(function: str, access: Access = "closed", **arguments: Any) -> Any:
    arguments = {name: os.getpid() if value == "HOST" else value for name, value in arguments.items()}
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "document"
        blob.write_text("words")
        limits: dict[str, Any] = {"time_limit_s": 30, "memory_mb": 300}
        call = SandboxCall(f"tests.adversary.hostile:{function}", arguments, blob=blob, access=access, **limits)
        try:
            return call.run()
        except (AppError, SandboxFailed) as error:
            return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
