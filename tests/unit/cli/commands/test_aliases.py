"""The old words work for one release and are hidden from --help and completion."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from app.__main__ import INTERNAL
from app.cli.commands.completion import make_tree
from app.cli.main import app

# Old path → new path.
ALIASES = {
    "single": "all-in-one",
    "dead": "dead-letters",
    "dead list": "dead-letters list",
    "dead retry": "dead-letters retry",
    "dead discard": "dead-letters discard",
    "collections change": "collections update",
    "keys change": "keys update",
    "tenants change": "tenants update",
}


def _help_of(path: str) -> str:
    ran = CliRunner().invoke(app, [*path.split(), "--help"])
    assert ran.exit_code == 0, ran.output
    return ran.output


@pytest.mark.parametrize(("old", "new"), ALIASES.items())
def test_an_old_word_runs_the_new_command(old: str, new: str) -> None:
    old_usage, old_help = _help_of(old).split("\n", 1)
    new_usage, new_help = _help_of(new).split("\n", 1)
    assert old_help == new_help
    assert old_usage.replace(old, new) == new_usage


@pytest.mark.parametrize(("old", "new"), ALIASES.items())
def test_an_old_word_is_hidden(old: str, new: str) -> None:
    group, _, word = old.rpartition(" ")
    commands = [line.split()[0] for line in _help_of(group).partition("Commands:")[2].splitlines() if line.strip()]
    if group != "dead":
        assert word not in commands and new.split()[-1] in commands
    tree = make_tree(typer.main.get_command(app))
    assert old not in tree and new in tree
    assert word not in {offered.text for offered in tree[group]} if group in tree else group == "dead"


def test_words_of_containers_keep_their_old_names() -> None:
    assert INTERNAL["healthy"] == INTERNAL["healthcheck"]
    assert INTERNAL["minder"] == INTERNAL["supervisor-listener"]
