"""`millrace doctor`: check this machine, its settings and the services they name."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from app.cli import exit_codes
from app.cli.lazy import checks, output
from app.cli.options import AsJson

if TYPE_CHECKING:
    from app.cli.local.checks import Finding

STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(as_json: AsJson = False) -> int:
    """Check this machine, its settings and the services they name; each fault comes with a fix."""
    findings = []
    for finding in checks.run_checks():
        findings.append(finding)
        if not as_json:
            _print_finding(finding)
    if as_json:
        output.emit([asdict(finding) for finding in findings])
    return exit_codes.FAILED if any(finding.state == "fail" for finding in findings) else exit_codes.OK


def _print_finding(finding: Finding) -> None:
    style = STYLES[finding.state]
    output.out.print(f"[{style}]{finding.state:<5}[/]{finding.check:<10} {output.plain(finding.found)}")
    if finding.fix:
        output.out.print(f"                [dim]{output.plain(finding.fix)}[/]")
