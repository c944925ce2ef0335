"""Directives for robots in pages and headers."""

from __future__ import annotations


def directives(values: list[str], agent: str) -> set[str]:
    """Return the directives for our agent, with `none` expanded; skips parts for others, as `otherbot: nofollow`."""
    names: set[str] = set()
    for line in values:
        applies = True
        for word in line.lower().split(","):
            name, colon, rest = word.strip().partition(":")
            if colon and name not in ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"):
                applies, name = name.strip() in agent.lower(), rest.strip()
            if applies:
                names.add(name)
    return names | ({"noindex", "nofollow"} if "none" in names else set())
