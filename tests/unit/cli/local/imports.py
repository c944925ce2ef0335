"""Run `millrace import pulse` as a process."""

from __future__ import annotations

import os
from typing import Any

from tests.support.command import Ran, millrace
from tests.support.pulse import PulseService


def run_import(pulse: PulseService, *words: str, **env: str) -> Ran:
    return millrace("import", "pulse", pulse.url, *words, env={**os.environ, **env})


def import_json(pulse: PulseService, *words: str, **env: str) -> Any:
    """Return the report of a successful import."""
    ran = run_import(pulse, "--json", *words, **env)
    assert ran.code == 0, ran.err
    return ran.json
