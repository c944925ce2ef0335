"""Assemble the commands into one program, and turn their errors into exit codes."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from app.cli import exit_codes
from app.cli.commands import (
    all_in_one,
    backup,
    collections,
    completion,
    config,
    crawl,
    dead_letters,
    deliveries,
    doctor,
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

app = typer.Typer(
    name="millrace",
    help="Durable jobs, live progress, hybrid search. Processes: api, worker, scheduler, relay.",
    epilog=exit_codes.EXIT_CODES_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("up")(up.up)
app.command("all-in-one")(all_in_one.all_in_one)
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
app.add_typer(collections.collections, name="collections")
app.add_typer(crawl.crawl, name="crawl")
app.add_typer(watch.watch, name="watch")
app.add_typer(deliveries.deliveries, name="deliveries")
app.add_typer(keys.keys, name="keys")
app.add_typer(tenants.tenants, name="tenants")
app.add_typer(imports.imports, name="import")
app.add_typer(models.models, name="models")
app.add_typer(config.config, name="config")
# The old words, hidden, for one release.
app.command("single", hidden=True)(all_in_one.all_in_one)
app.add_typer(dead_letters.dead_letters, name="dead", hidden=True)


@app.callback()
def _program(
    profile: Annotated[
        str, typer.Option(help="Profile of ~/.config/millrace/config.toml to use.", metavar="NAME")
    ] = "",
) -> None:
    if profile:
        profiles.choose(profile)


def main() -> None:
    """Run a command; a CliExit becomes one sentence on stderr and its exit code."""
    try:
        code = app(standalone_mode=False)
    except CliExit as error:
        _print_error(error.message)
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


def _print_error(message: str) -> None:
    if not message:
        return
    as_json = "--json" in sys.argv
    line = json.dumps({"error": message}, ensure_ascii=False) if as_json else f"millrace: {message}"
    sys.stderr.write(line + "\n")
