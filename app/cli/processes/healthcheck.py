"""`millrace healthy PORT...`: exit code 0 if this container's program is ready; for a container's health check.

The first of the ports that is served decides: an api's own, or the health port of the other programs. No settings are
read and nothing is imported beyond the standard library, since it runs every few seconds.
"""

from __future__ import annotations

import http.client
import sys

PATIENCE_S = 5.0


def run(ports: list[str]) -> int:
    """0 where /readyz says yes, 1 where it says no or nobody serves."""
    for port in ports:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=PATIENCE_S)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            body = answer.read(500).decode(errors="replace")
        except ConnectionRefusedError:
            continue
        except OSError as error:
            sys.stdout.write(f"port {port}: {error}\n")
            return 1
        finally:
            connection.close()
        sys.stdout.write(f"{answer.status} {body}\n")
        return 0 if answer.status == 200 else 1
    sys.stdout.write(f"nothing is served on {' or '.join(ports)}\n")
    return 1
