"""Terminals of the tests: `millrace` against an api in this process, or on a machine with only a home folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.support.command import Ran, millrace
from tests.support.processes import Process
from tests.support.stack import API_SECRET, REPOSITORY


class Terminal:
    """Run commands against the api at `url`, with its secret."""

    def __init__(self, url: str) -> None:
        self.env = {**os.environ, "MILLRACE_URL": url, "MILLRACE_API_SECRET": API_SECRET}

    def __call__(self, *words: str) -> Ran:
        return millrace(*words, env=self.env)


class RemoteTerminal:
    """Run commands on a machine without an installation: only a home folder and the program."""

    def __init__(self, home: Path) -> None:
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "MILLRACE_PROFILES": "~/.config/millrace/config.toml",
        }
        self.profiles = home / ".config" / "millrace" / "config.toml"
        self.profiles.parent.mkdir(parents=True)

    def __call__(self, *words: str, **env: str) -> Ran:
        return millrace(*words, env=self.env | env)

    def start(self, log: Path, *words: str, **env: str) -> Process:
        """Start a command that runs until it is stopped."""
        command = [sys.executable, "-m", "app", *words]
        environment = self.env | env | {"PYTHONPATH": str(REPOSITORY)}
        process = Process("follower", command, log=log, env=environment, is_warm=True)
        process.start()
        return process
