"""Completion: every command and option is in each shell's script, and the shells that are here take it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import typer

from app.__main__ import PROCESSES as WORDS
from app.cli.commands import app
from app.cli.completion import PROCESSES, SCRIPTS, tree

TREE = tree(typer.main.get_command(app))


def test_the_tree_has_what_people_type() -> None:
    assert {word.text for word in TREE[""]} >= {*WORDS, "jobs", "search", "completion", "--profile", "--help"}
    assert tuple(PROCESSES) == WORDS
    assert {word.text for word in TREE["jobs"]} >= {"list", "follow", "cancel"}
    assert {word.text for word in TREE["jobs follow"]} >= {"--all", "--json", "--timeout"}
    assert {word.text for word in TREE["completion"]} >= set(SCRIPTS)


def test_every_command_speaks_json_and_says_what_it_does() -> None:
    """All but what runs on until it is stopped, and what prints a script."""
    groups = {path.rpartition(" ")[0] for path in TREE if path} | {""}
    commands = TREE.keys() - groups - {"single", "completion"}
    assert [path for path in commands if "--json" not in {word.text for word in TREE[path]}] == []
    assert [word.text for words in TREE.values() for word in words if not word.help] == []


@pytest.mark.parametrize("shell", SCRIPTS)
def test_each_script_knows_every_command(shell: str) -> None:
    script = SCRIPTS[shell](TREE)
    for path, words in TREE.items():
        assert not path or f"'{path}'" in script or f'"{path}"' in script
        for word in words:
            assert word.text.removeprefix("--") in script


@pytest.mark.parametrize("shell", [shell for shell in SCRIPTS if shutil.which(shell)])
def test_the_shells_that_are_here_take_theirs(shell: str) -> None:
    ran = subprocess.run([shell, "-n"], input=SCRIPTS[shell](TREE), capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
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
def test_bash_completes(typed: str, expected: str) -> None:
    script = SCRIPTS["bash"](TREE) + (
        f'read -ra COMP_WORDS <<< "{typed}"\nCOMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))\n_millrace\n'
        'printf "%s" "${COMPREPLY[*]}"\n'
    )
    ran = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == (expected, "")
