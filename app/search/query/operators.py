"""What a query says beside its words: "exact words", -without, site:example.com, lang:de."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = re.compile(
    r'(?<!\S)(?P<minus>-?)"(?P<phrase>[^"]*[^\W_][^"]*)"'
    r"|(?<!\S)site:(?P<site>[^\s\"]+)"
    r"|(?<!\S)lang:(?P<language>[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*)(?!\S)"
    r"|(?<!\S)-(?P<without>[^\W_]\S*)"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """`text` is what is scored, the words of phrases among it."""

    text: str
    phrases: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    without_phrases: tuple[str, ...] = ()
    site: str | None = None
    language: str | None = None


def parse(query: str) -> Asked:
    """The query taken apart; what is no operator is text. Of two sites or languages the last holds."""
    found: dict[str, list[str]] = {"phrase": [], "-phrase": [], "site": [], "language": [], "without": []}

    def take(match: re.Match[str]) -> str:
        name = match.lastgroup or ""
        value = match[name].strip()
        found[f"-{name}" if match["minus"] else name].append(value)
        return f" {value} " if name == "phrase" and not match["minus"] else " "

    text = " ".join(_PART.sub(take, query).split()) if _PART.search(query) else query
    return Asked(
        text=text,
        phrases=tuple(found["phrase"]),
        without=tuple(found["without"]),
        without_phrases=tuple(found["-phrase"]),
        site=_site(found["site"][-1]) if found["site"] else None,
        language=found["language"][-1] if found["language"] else None,
    )


def _site(value: str) -> str:
    """The domain of what somebody typed or copied: without scheme, path and a leading '*.'."""
    return re.sub(r"^[a-z]+://", "", value, flags=re.IGNORECASE).split("/", 1)[0].removeprefix("*.").strip(".")
