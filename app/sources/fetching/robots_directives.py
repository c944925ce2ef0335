"""What pages and their servers say to robots."""

from __future__ import annotations


def directives(said: list[str], agent: str) -> set[str]:
    """What robots are told, `none` taken apart: of `noindex, otherbot: nofollow` what is meant for us."""
    found: set[str] = set()
    for line in said:
        meant = True
        for word in line.lower().split(","):
            name, colon, rest = word.strip().partition(":")
            if colon and name not in ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"):
                meant, name = name.strip() in agent.lower(), rest.strip()
            if meant:
                found.add(name)
    return found | ({"noindex", "nofollow"} if "none" in found else set())
