"""`millrace completion SHELL`: a script that completes commands and options, made from the commands themselves.

It starts no program at each Tab: everything it knows stands in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from app.cli import exit_codes

PROCESSES = {
    "api": "Serve the API.",
    "worker": "Run jobs.",
    "scheduler": "Tick once a minute.",
    "relay": "Feed the workers from the database.",
}


class Word(NamedTuple):
    """A command or an option, and what it does."""

    text: str
    help: str


Tree = dict[str, list[Word]]  # "" is the program, "jobs" a group, "jobs list" a command


def run(shell: str, command: Any) -> int:
    """Print the script for bash, zsh or fish."""
    sys.stdout.write(SCRIPTS[shell](tree(command)))
    return exit_codes.OK


def tree(command: Any) -> Tree:
    """What may follow each command: its own commands first, then its options."""
    found: Tree = {}
    _walk(command, "", found)
    found[""] = [*(Word(name, text) for name, text in PROCESSES.items()), *found[""]]
    found["completion"] = [*(Word(shell, f"For {shell}.") for shell in SCRIPTS), *found["completion"]]
    return found


def _walk(command: Any, path: str, found: Tree) -> None:
    inner = getattr(command, "commands", {})
    words = [Word(name, _line(one.help)) for name, one in inner.items() if not one.hidden]
    for given in command.params:
        if given.param_type_name == "option" and not given.hidden:
            words += [Word(text, _line(given.help)) for text in (*given.opts, *given.secondary_opts)]
    found[path] = [*words, Word("--help", "Show what there is.")]
    for name, one in inner.items():
        _walk(one, f"{path} {name}".strip(), found)


def _line(text: str | None) -> str:
    """The first line, without what a shell would take for its own."""
    return "".join(letter for letter in (text or "").strip().split("\n")[0] if letter not in "'\"`\\$:[]")


# Which command the words before the cursor name: each that leads to a known one counts, options and values do not.
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


def _bash(found: Tree) -> str:
    cases = "\n".join(
        f'        "{path}") words="{" ".join(word.text for word in words)}" ;;' for path, words in found.items()
    )
    return _BASH.format(paths=_patterns(found), cases=cases)


def _zsh(found: Tree) -> str:
    lists = {path: " ".join(f"'{word.text}:{word.help}'" for word in words) for path, words in found.items()}
    cases = "\n".join(f'        "{path}") found=({words}) ;;' for path, words in lists.items())
    return _ZSH.format(paths=_patterns(found), cases=cases)


def _fish(found: Tree) -> str:
    lines = []
    for path, words in found.items():
        for word in words:
            name = f"-l {word.text[2:]}" if word.text.startswith("--") else f"-s {word.text[1:]}"
            what = name if word.text.startswith("-") else f"-f -a {word.text}"
            lines.append(f"complete -c millrace -n '__millrace_at \"{path}\"' {what} -d '{word.help}'")
    paths = " ".join(f"'{path}'" for path in found if path)
    return _FISH.format(paths=paths, lines="\n".join(lines))


def _patterns(found: Tree) -> str:
    return "|".join(f'"{path}"' for path in found if path)


SCRIPTS: dict[str, Callable[[Tree], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
