"""A kind of one's own in ten lines: what the README shows, done letter by letter."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ten_lines
from tests.support.command import millrace
from tests.support.stack import REPOSITORY, Stack

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(180),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),  # which database makes no difference here
]


def test_the_ten_lines_of_the_readme_work_as_they_stand(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "desk"
    commands = ten_lines.write(folder)
    code = [line for line in (folder / "shop" / "jobs.py").read_text().splitlines()[1:] if line]
    assert len(code) <= 10, "ten lines are promised"
    assert len(commands) == 5

    stack.cwd = folder
    for command in commands:
        _follow(command, stack, folder)


def _follow(command: str, stack: Stack, folder: Path) -> None:
    """Run a line of the README as a person does; an unknown line fails."""
    words = shlex.split(command)
    match words:
        case ["make", "setup"]:
            assert "setup:" in (REPOSITORY / "Makefile").read_text()
            importlib.import_module("pytest")  # make run installs none
        case [".venv/bin/python", *rest]:
            ran = subprocess.run([sys.executable, *rest], cwd=folder, capture_output=True, text=True, timeout=60)
            assert ran.returncode == 0, ran.stdout + ran.stderr
            assert "1 passed" in ran.stdout
        case [setting, "make", "run"]:
            name, _, value = setting.partition("=")
            stack.env[name] = value
            stack.start(scheduler=True)
        case [".venv/bin/millrace", "kinds"]:
            said = millrace(*words[1:], env=stack.env, cwd=folder)
            assert (said.code, "shop.receipt" in said.out) == (0, True), said.err + said.out
            assert "order_id: integer" in said.out
        case [".venv/bin/millrace", "jobs", "start", *_]:
            said = millrace(*words[1:], env=stack.env, cwd=folder)
            assert said.code == 0, said.err + stack.logs()
            assert "receipt of order 7" in said.out
        case _:
            raise AssertionError(f"the README says {command!r}, which this test cannot follow")
