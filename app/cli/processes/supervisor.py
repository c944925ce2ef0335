"""supervisord in this process; what the minder left behind is its last line, and then its exit code is 1.

`python -m app.cli.processes.supervisor json|console FAULT-FILE CONFIGURATION`. supervisord itself always ends with 0.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from supervisor import supervisord

from app.cli.processes.supervisor_listener import render


def run(style: str, fault: Path, configuration: Path) -> int:
    """Until somebody stops it: 0, or 1 where a program could not stay up."""
    fault.unlink(missing_ok=True)
    supervisord.main(["-n", "-c", str(configuration)])
    try:
        reason = fault.read_text().strip()
    except FileNotFoundError:
        return 0
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    event = {"role": "supervisor", "event": reason, "level": "critical", "timestamp": at}
    sys.stdout.write(render(style, event) + "\n")
    sys.stdout.flush()
    return 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
