"""The run as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median


@dataclass
class Report:
    dialect: str
    seed: int
    rounds: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    jobs: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    exits: dict[str, int] = field(default_factory=dict)
    effects: int = 0
    unconfirmed: int = 0
    longest_quiet_s: float = 0.0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.left_over)

    def text(self) -> str:
        lines = [
            f"## {self.dialect}, seed {self.seed}",
            "",
            "| rounds | minutes | jobs | effects | attempts cut short | lost | doubled | left over |",
            "|---|---|---|---|---|---|---|---|",
            f"| {self.rounds} | {self.seconds / 60:.1f} | {self.jobs.total()} | {self.effects} "
            f"| {self.attempts['died']} by a death, {self.attempts['handed_back']} handed back "
            f"| {len(self.lost)} | {len(self.doubled)} | {len(self.left_over)} |",
            "",
            f"All quiet at most {self.longest_quiet_s:.1f} s after the last fault of a checkpoint.",
            "",
            "| fault | times | a new job done after: p50 s | max s |",
            "|---|---|---|---|",
        ]
        for name, count in sorted(self.faults.items()):
            took = self.recoveries.get(name) or [0.0]
            lines.append(f"| {name} | {count} | {median(took):.2f} | {max(took):.2f} |")
        lines += ["", "Jobs: " + ", ".join(f"{kind} {count}" for kind, count in sorted(self.jobs.items())) + "."]
        if self.exits:
            lines += ["Ends: " + ", ".join(f"{name} {count} times" for name, count in sorted(self.exits.items())) + "."]
        for title in ("lost", "doubled", "left_over"):
            sentences = getattr(self, title)
            lines += [f"- {title.replace('_', ' ')}: {sentence}" for sentence in sentences[:20]]
            if len(sentences) > 20:
                lines.append(f"- {title.replace('_', ' ')}: and {len(sentences) - 20} more")
        return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
