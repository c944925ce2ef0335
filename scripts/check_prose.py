"""Count what breaks the rules of writing, and fail above the ceilings in scripts/prose_ceiling.toml.

scripts/check_prose.py                   the counts, their ceilings and their targets
scripts/check_prose.py --list RULE       every place, the files with the most of them first
scripts/check_prose.py --lower           write lower ceilings; a higher one is refused
"""

from __future__ import annotations

import argparse
import math
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.prose import Survey, survey

ROOT = Path(__file__).resolve().parents[1]
CEILINGS = ROOT / "scripts" / "prose_ceiling.toml"


@dataclass(frozen=True)
class Rule:
    """A rule with its target; `base` is what 100 % or 1,000 words are, None for a plain number."""

    name: str
    meaning: str
    target: float
    base: Callable[[Survey], float] | None = None

    def value(self, result: Survey) -> float:
        """The number or the rate, rounded up to hundredths."""
        number = sum(place.rule == self.name for place in result.places)
        if self.base is None:
            return number
        return math.ceil(100 * number / max(self.base(result), 0.01)) / 100


RULES = (
    Rule("openings", "percent of docstrings that open with what, who, whether or how", 1, lambda s: s.docstrings / 100),
    Rule("words-code", "banned words a 1,000 in docstrings and comments", 1, lambda s: s.words["code"] / 1000),
    Rule("words-docs", "banned words a 1,000 in pages", 1, lambda s: s.words["docs"] / 1000),
    Rule("words-messages", "banned words a 1,000 in messages", 1, lambda s: s.words["messages"] / 1000),
    Rule("names", "bindings of vague names, such as found, said, given", 40),
    Rule("constants", "constants named MOST_, LONGEST_, LARGEST_, FEWEST_", 0),
    Rule("classes", "public classes of app whose name another one has", 0),
    Rule("files", "modules of app whose name another one of the same package has", 0),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Count what breaks the rules of writing.")
    parser.add_argument("--list", choices=[rule.name for rule in RULES], help="show every place of this rule")
    parser.add_argument("--path", default="", help="with --list: only paths that begin so")
    parser.add_argument("--lower", action="store_true", help="write lower ceilings; a higher one is refused")
    options = parser.parse_args()
    result = survey(ROOT)
    if options.list:
        print("\n".join(places_of(result, options.list, options.path)))
        return 0
    ceilings = tomllib.loads(CEILINGS.read_text()) if CEILINGS.exists() else {}
    values = {rule.name: rule.value(result) for rule in RULES}
    too_high = [name for name, value in values.items() if value > ceilings.get(name, math.inf)]
    for rule in RULES:
        fault = "fault" if rule.name in too_high else ""
        limits = f"ceiling {ceilings.get(rule.name, '-'):>6}  target {rule.target:>3}"
        print(f"{fault:5} {rule.name:<15} {values[rule.name]:>8}  {limits}  {rule.meaning}")
    if options.lower and not too_high:
        CEILINGS.write_text(toml(lowered(ceilings, values)))
    if too_high:
        print(f"prose: above the ceiling; see `scripts/check_prose.py --list {too_high[0]}`")
    return 1 if too_high else 0


def lowered(ceilings: dict[str, float], values: dict[str, float]) -> dict[str, float]:
    """The ceilings that these values allow: none is higher than before, none lower than its target."""
    return {rule.name: min(ceilings.get(rule.name, math.inf), max(values[rule.name], rule.target)) for rule in RULES}


def toml(ceilings: dict[str, float]) -> str:
    lines = [f"{name} = {value:g}" for name, value in ceilings.items()]
    return "# Written by `scripts/check_prose.py --lower`. A ceiling only falls.\n" + "\n".join(lines) + "\n"


def places_of(result: Survey, rule: str, prefix: str) -> list[str]:
    """The places of a rule, one a line, the files with the most of them first."""
    places = [place for place in result.places if place.rule == rule and place.path.startswith(prefix)]
    counts = Counter(place.path for place in places)
    by_name = rule in ("classes", "files")
    places.sort(key=lambda place: (place.text if by_name else "", -counts[place.path], place.path, place.line))
    return [f"{place.path}:{place.line}: {place.text}" for place in places] + [f"{len(places)} in {len(counts)} files"]


if __name__ == "__main__":
    sys.exit(main())
