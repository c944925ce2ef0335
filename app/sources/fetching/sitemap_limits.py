"""How much of a sitemap is read."""

from __future__ import annotations

MOST_PAGES = 50_000
# The protocol's own limit of a file, unpacked.
MOST_BYTES = 50 * 1024 * 1024
