"""`millrace healthcheck PORT...`: exit code 0 if this container's program is ready; for its health check.

The first port that accepts a connection decides: that of an api, or the health port of another program. The check
runs every few seconds, so it reads no settings and imports only the standard library.
"""

from __future__ import annotations

import http.client
import os
import sys
from pathlib import Path

TIMEOUT_S = 5.0


def run(ports: list[str]) -> int:
    """Return 0 if /readyz answers 200, else 1."""
    for port in [*ports, *_ports_of_programs()]:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            body = response.read(500).decode(errors="replace")
        except ConnectionRefusedError:
            continue
        except OSError as error:
            sys.stdout.write(f"port {port}: {error}\n")
            return 1
        finally:
            connection.close()
        sys.stdout.write(f"{response.status} {body}\n")
        return 0 if response.status == 200 else 1
    sys.stdout.write(f"no program listens on port {' or '.join(ports)}\n")
    return 1


def _ports_of_programs() -> list[str]:
    """Return the ports that `millrace all-in-one` has given to the programs of this container."""
    try:
        return (Path(os.environ["MILLRACE_DATA_DIR"]) / "run" / "health_ports").read_text().split()
    except (KeyError, OSError):
        return []
