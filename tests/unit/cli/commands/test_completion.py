"""Completion: each shell's script has every command and option, and the installed shells accept it."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import typer

from app.__main__ import PROCESSES as WORDS
from app.cli.commands.completion import SCRIPTS, make_tree
from app.cli.main import ROLES, app
from tests.support.services import missing

TREE = make_tree(typer.main.get_command(app))


def test_the_tree_has_commands_and_options() -> None:
    assert {word.text for word in TREE[""]} >= {*WORDS, "jobs", "search", "completion", "--profile", "--help"}
    assert tuple(ROLES) == WORDS
    assert {word.text for word in TREE["jobs"]} >= {"list", "follow", "cancel"}
    assert {word.text for word in TREE["jobs follow"]} >= {"--all", "--json", "--timeout"}
    assert {word.text for word in TREE["completion"]} >= set(SCRIPTS)


def test_every_command_has_json_and_a_help_text() -> None:
    """Except the commands that run until they are stopped, and the one that prints a script."""
    groups = {path.rpartition(" ")[0] for path in TREE if path} | {""}
    commands = TREE.keys() - groups - {"all-in-one", "completion", *ROLES}
    assert [path for path in commands if "--json" not in {word.text for word in TREE[path]}] == []
    assert [word.text for words in TREE.values() for word in words if not word.help] == []


@pytest.mark.parametrize("shell", SCRIPTS)
def test_each_script_contains_every_command(shell: str) -> None:
    script = SCRIPTS[shell](TREE)
    for path, words in TREE.items():
        assert not path or f"'{path}'" in script or f'"{path}"' in script
        for word in words:
            assert word.text.removeprefix("--") in script


@pytest.mark.parametrize("shell", [shell for shell in SCRIPTS if shutil.which(shell)])
def test_installed_shells_accept_their_script(shell: str) -> None:
    ran = subprocess.run([shell, "-n"], input=SCRIPTS[shell](TREE), capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


TYPED = pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("millrace jo", "jobs"),
        ("millrace jobs fol", "follow"),
        ("millrace --profile work jobs list --sta", "--state"),
        ("millrace jobs follow --al", "--all"),
        ("millrace rel", "relay"),
        ("millrace completion fi", "fish"),
        ("millrace nothing", ""),
    ],
)


@TYPED
def test_bash_completes(typed: str, expected: str) -> None:
    script = SCRIPTS["bash"](TREE) + (
        f'read -ra COMP_WORDS <<< "{typed}"\nCOMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))\n_millrace\n'
        'printf "%s" "${COMPREPLY[*]}"\n'
    )
    ran = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == (expected, "")


@TYPED
def test_fish_completes(typed: str, expected: str, tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        missing("fish", "apt-get install fish")
    script = tmp_path / "millrace.fish"
    script.write_text(SCRIPTS["fish"](TREE))
    command = f"source {script}; complete -C '{typed}'"
    env = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    ran = subprocess.run(["fish", "--no-config", "-c", command], capture_output=True, text=True, check=True, env=env)
    offered = [line.partition("\t")[0] for line in ran.stdout.splitlines()]
    assert offered == ([expected] if expected else []), ran.stderr


@TYPED
def test_zsh_completes(typed: str, expected: str, tmp_path: Path) -> None:
    """In a terminal: press Tab after the typed letters, and read the whole word."""
    if shutil.which("zsh") is None:
        missing("zsh", "apt-get install zsh")
    (tmp_path / "_millrace").write_text(SCRIPTS["zsh"](TREE))
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execve(shutil.which("zsh") or "", ["zsh", "-f", "-i"], {"TERM": "dumb", "HOME": str(tmp_path), "PATH": ""})
    try:
        _type(terminal, f"unsetopt zle_bracketed_paste; PS1='rea''dy>'; fpath=({tmp_path} $fpath)\n", "ready>")
        _type(terminal, "autoload -U compinit && compinit -u -D && print com''pletes\n", "completes", patience_s=1)
        if expected:
            _type(terminal, f"{typed}\t", expected)
            return
        shown = _type(terminal, f"{typed}\t", typed, patience_s=2)
        assert re.sub(r"\x07|\x1b\[[?0-9;]*[a-zA-Z]", "", shown).strip() == typed, shown
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)


def _type(terminal: int, text: str, until: str, *, patience_s: float = 0.0) -> str:
    """Type text; return the output once it contains `until` and nothing came for `patience_s`."""
    os.write(terminal, text.encode())
    text_out, deadline = "", time.monotonic() + 40
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], patience_s if until in text_out else 1)
        if ready:
            text_out += os.read(terminal, 4096).decode("utf-8", "replace")
        elif until in text_out:
            return text_out
        if until in text_out and not patience_s:
            return text_out
    raise AssertionError(f"waited for {until!r}, got {text_out!r}")
