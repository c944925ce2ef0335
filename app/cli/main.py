"""Assemble the commands into one program, and turn their errors into exit codes."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from app import __version__
from app.cli import exit_codes
from app.cli.commands import (
    audit,
    backup,
    collections,
    completion,
    config,
    crawl,
    dead_letters,
    deliveries,
    doctor,
    document,
    imports,
    index,
    jobs,
    keys,
    kinds,
    migrate,
    models,
    queues,
    schedules,
    search,
    tenants,
    up,
    watch,
    workers,
)
from app.cli.exit_codes import CliExit
from app.cli.lazy import profiles

ROLES = {
    "api": "Process: serve the HTTP API.",
    "worker": "Process: run jobs; options go to Dramatiq, such as `-Q bulk` for one queue.",
    "scheduler": "Process: start the jobs of schedules.",
    "relay": "Process: make due jobs ready, and free those of dead workers.",
}

# Options that follow the word are those of the program behind it.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def _make_role(role: str) -> Callable[[typer.Context], int]:
    """Return the command that becomes a process of the system."""

    def start(context: typer.Context) -> int:
        code: int = importlib.import_module("app.cli.processes.run").run(role, context.args)
        return code

    return start


app = typer.Typer(
    name="millrace",
    help="Durable jobs, live progress, hybrid search.",
    epilog=exit_codes.EXIT_CODES_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("up")(up.up)
app.command("all-in-one")(up.all_in_one)
app.command("search")(search.search)
app.command("kinds")(kinds.kinds)
app.command("doctor")(doctor.doctor)
app.command("migrate")(migrate.migrate)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("completion")(completion.completion)
app.add_typer(jobs.jobs, name="jobs")
app.add_typer(dead_letters.dead_letters, name="dead-letters")
app.add_typer(workers.workers, name="workers")
app.add_typer(queues.queues, name="queues")
app.add_typer(schedules.schedules, name="schedules")
app.add_typer(index.index, name="index")
app.add_typer(document.documents, name="documents")
app.add_typer(collections.collections, name="collections")
app.add_typer(crawl.crawl, name="crawl")
app.add_typer(watch.watch, name="watch")
app.add_typer(deliveries.deliveries, name="deliveries")
app.add_typer(keys.keys, name="keys")
app.add_typer(tenants.tenants, name="tenants")
app.add_typer(audit.audit, name="audit")
app.add_typer(imports.imports, name="import")
app.add_typer(models.models, name="models")
app.add_typer(config.config, name="config")
for _role, _task in ROLES.items():
    app.command(_role, help=_task, context_settings=PASS_ON)(_make_role(_role))
# The old words, hidden, for one release.
app.command("single", hidden=True)(up.all_in_one)
app.add_typer(dead_letters.dead_letters, name="dead", hidden=True)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        sys.stdout.write(f"millrace {__version__}\n")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    profile: Annotated[
        str, typer.Option(help="Profile of ~/.config/millrace/config.toml to use.", metavar="NAME")
    ] = "",
) -> None:
    if profile:
        profiles.choose(profile)


def main() -> None:
    """Run a command; a CliExit becomes one sentence on stderr and its exit code."""
    _write_any_text()
    try:
        code = app(standalone_mode=False)
    except CliExit as error:
        _print_error(error.message, error)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(exit_codes.INTERRUPTED)
    except BrokenPipeError:  # the reader of the output, such as head, has closed the pipe
        sys.stderr.close()
        sys.exit(exit_codes.OK)
    except typer.Abort:
        sys.exit(exit_codes.INTERRUPTED)
    except typer.TyperException as error:
        _print_error(f"{error.format_message()} (see millrace --help)")
        sys.exit(exit_codes.USAGE)
    sys.exit(code if isinstance(code, int) else exit_codes.OK)


def _print_error(message: str, error: CliExit | None = None) -> None:
    if not message:
        return
    server, source = (error.server, error.source) if error is not None else ("", "")
    where = ", ".join(part for part in (server, source) if part and part not in message)
    if "--json" in sys.argv:
        line = json.dumps({"error": message, "server": server or None, "installation": source or None})
    else:
        line = f"millrace: {message}" + (f" ({where})" if where else "")
    sys.stderr.write(line + "\n")


def _write_any_text() -> None:
    """Let a terminal without UTF-8 show what it cannot encode as an escape; the command must not fail of it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
