"""Run supervisord in this process; exit with 1 and print the reason if a program could not stay up.

`python -m app.cli.processes.supervisor json|console FAULT-FILE CONFIGURATION`. supervisord always exits with 0; the
listener leaves the reason in the fault file.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from supervisor import supervisord

from app.cli.processes.supervisor_listener import format_event
from app.core.process import hide_memory


def run(style: str, fault: Path, configuration: Path) -> int:
    """Run until a signal stops supervisord. Return 0, or 1 if a program could not stay up."""
    hide_memory()
    fault.unlink(missing_ok=True)
    # Only root names a user: supervisord looks a name up, and a container's uid may have none.
    user = ["-u", "0"] if os.getuid() == 0 else []
    supervisord.main(["-n", "-c", str(configuration), *user])
    try:
        reason = fault.read_text().strip()
    except FileNotFoundError:
        return 0
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    event = {"role": "supervisor", "event": reason, "level": "critical", "timestamp": at}
    sys.stdout.write(format_event(style, event) + "\n")
    sys.stdout.flush()
    return 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
