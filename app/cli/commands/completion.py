"""`millrace completion SHELL`: a script that completes commands and options, generated from the commands.

The script contains all words, so a Tab starts no program.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import typer

from app.cli import exit_codes


class CompletionWord(NamedTuple):
    """A command or an option with its help."""

    text: str
    help: str


Tree = dict[str, list[CompletionWord]]  # "" is the program, "jobs" a group, "jobs list" a command


def completion(
    ctx: typer.Context,
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="bash, zsh or fish.", metavar="SHELL")],
) -> int:
    """Print a script that completes commands at Tab: source <(millrace completion bash)."""
    sys.stdout.write(SCRIPTS[shell](make_tree(ctx.find_root().command)))
    return exit_codes.OK


def make_tree(command: Any) -> Tree:
    """Return the words that may follow each command: its subcommands first, then its options."""
    tree: Tree = {}
    _add_command(command, "", tree)
    tree["completion"] = [*(CompletionWord(shell, f"For {shell}.") for shell in SCRIPTS), *tree["completion"]]
    return tree


def _add_command(command: Any, path: str, tree: Tree) -> None:
    subcommands = {name: sub for name, sub in getattr(command, "commands", {}).items() if not sub.hidden}
    words = [CompletionWord(name, _first_line(sub.help)) for name, sub in subcommands.items()]
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.hidden:
            options = (*parameter.opts, *parameter.secondary_opts)
            words += [CompletionWord(text, _first_line(parameter.help)) for text in options]
    tree[path] = [*words, CompletionWord("--help", "Show this message.")]
    for name, sub in subcommands.items():
        _add_command(sub, f"{path} {name}".strip(), tree)


def _first_line(text: str | None) -> str:
    """Return the first line without letters that have a meaning in a shell."""
    return "".join(letter for letter in (text or "").strip().split("\n")[0] if letter not in "'\"`\\$:[]")


# The scripts find the command before the cursor: words that lead to a known command count, options and values do not.
_BASH = """# bash completion of millrace: source <(millrace completion bash)
_millrace() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} at="" words="" index
    for ((index = 1; index < COMP_CWORD; index++)); do
        case "${{at:+$at }}${{COMP_WORDS[index]}}" in
            {paths}) at="${{at:+$at }}${{COMP_WORDS[index]}}" ;;
        esac
    done
    case "$at" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _millrace millrace
"""

_ZSH = """#compdef millrace
# zsh completion of millrace: source <(millrace completion zsh)
_millrace() {{
    local at="" index
    local -a found
    for ((index = 2; index < CURRENT; index++)); do
        case "${{at:+$at }}${{words[index]}}" in
            {paths}) at="${{at:+$at }}${{words[index]}}" ;;
        esac
    done
    case "$at" in
{cases}
    esac
    _describe 'millrace' found || _files
}}
if [ "$funcstack[1]" = _millrace ]; then _millrace "$@"; else compdef _millrace millrace; fi
"""

_FISH = """# fish completion of millrace: millrace completion fish | source
function __millrace_at
    set -l at
    set -l words (commandline -opc)
    for word in $words[2..-1]
        switch "$(string join ' ' $at $word)"
            case {paths}
                set -a at $word
        end
    end
    test "$(string join ' ' $at)" = "$argv[1]"
end
{lines}
"""


def _make_bash(tree: Tree) -> str:
    cases = "\n".join(
        f'        "{path}") words="{" ".join(word.text for word in words)}" ;;' for path, words in tree.items()
    )
    return _BASH.format(paths=_patterns(tree), cases=cases)


def _make_zsh(tree: Tree) -> str:
    lists = {path: " ".join(f"'{word.text}:{word.help}'" for word in words) for path, words in tree.items()}
    cases = "\n".join(f'        "{path}") found=({words}) ;;' for path, words in lists.items())
    return _ZSH.format(paths=_patterns(tree), cases=cases)


def _make_fish(tree: Tree) -> str:
    lines = []
    for path, words in tree.items():
        for word in words:
            option = f"-l {word.text[2:]}" if word.text.startswith("--") else f"-s {word.text[1:]}"
            match = option if word.text.startswith("-") else f"-f -a {word.text}"
            lines.append(f"complete -c millrace -n '__millrace_at \"{path}\"' {match} -d '{word.help}'")
    paths = " ".join(f"'{path}'" for path in tree if path)
    return _FISH.format(paths=paths, lines="\n".join(lines))


def _patterns(tree: Tree) -> str:
    return "|".join(f'"{path}"' for path in tree if path)


SCRIPTS: dict[str, Callable[[Tree], str]] = {"bash": _make_bash, "zsh": _make_zsh, "fish": _make_fish}
