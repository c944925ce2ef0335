"""Rules by which a parent waits for its children, and the error that makes it wait."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.errors import AppError

# The rule of a parent that a person retries: its children that did not succeed start again with it.
AGAIN = "again"


@dataclass(frozen=True, slots=True)
class Rule:
    """When a parent goes on: `any` after more than `limit` successes, every other rule unless more have failed."""

    name: str
    limit: int


ALL = Rule("all", 0)
ANY = Rule("any", 0)
ALWAYS = Rule("anyhow", 2**31 - 1)


def max_failures(failed: int) -> Rule:
    """Return the rule that allows up to `failed` children to fail or be cancelled."""
    return Rule(f"at_most:{failed}", failed)


@dataclass(frozen=True, slots=True)
class Wait:
    """The rule a parent waits by; `planned` is the final number of its children, where more will follow."""

    rule: Rule
    planned: int | None = None


class WaitForChildren(AppError):
    """Raised by a parent that has started its children: it leaves its worker, uncounted, until the rule decides."""

    code = "waits"

    def __init__(self, rule: Rule = ALL, *, planned: int | None = None) -> None:
        super().__init__(f"waits for its children ({rule.name})")
        self.wait = Wait(rule, planned)
