"""The words of the command line and their options; each one's work is in a module of its own.

Bodies import what they use: settings, HTTP and bars cost half a second that `--help` need not pay.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli import exit_codes
from app.cli.commands import kinds_words
from app.cli.commands.collections_words import collections
from app.cli.commands.crawl_words import crawl
from app.cli.commands.dead_words import dead
from app.cli.commands.deliveries_words import deliveries
from app.cli.commands.import_words import imports
from app.cli.commands.index_words import index
from app.cli.commands.keys_words import keys, tenants
from app.cli.commands.queues_words import queues
from app.cli.commands.schedules_words import schedules
from app.cli.commands.watch_words import watch
from app.cli.commands.workers_words import workers
from app.cli.exit_codes import EXITS, Quit

app = typer.Typer(
    name="millrace",
    help="Durable jobs, live progress, hybrid search. Processes: api, worker, scheduler, relay.",
    epilog=EXITS,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
jobs = typer.Typer(
    help="Jobs: what they are, why, and what to do with them.",
    no_args_is_help=True,
    epilog=EXITS,
    rich_markup_mode=None,
)
config = typer.Typer(help="Settings.", no_args_is_help=True, rich_markup_mode=None)
models = typer.Typer(help="Models for the embedder fastembed.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(jobs, name="jobs")
app.command("kinds")(kinds_words.kinds)
jobs.command("start")(kinds_words.start)
app.add_typer(dead, name="dead")
app.add_typer(workers, name="workers")
app.add_typer(queues, name="queues")
app.add_typer(schedules, name="schedules")
app.add_typer(config, name="config")
app.add_typer(models, name="models")
app.add_typer(index, name="index")
app.add_typer(imports, name="import")
app.add_typer(collections, name="collections")
app.add_typer(crawl, name="crawl")
app.add_typer(watch, name="watch")
app.add_typer(deliveries, name="deliveries")
app.add_typer(keys, name="keys")
app.add_typer(tenants, name="tenants")

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="ID")]


@app.callback()
def _program(
    profile: Annotated[
        str, typer.Option(help="Which server: a profile of ~/.config/millrace/config.toml.", metavar="NAME")
    ] = "",
) -> None:
    if profile:
        from app.cli.client import profiles

        profiles.choose(profile)


def main() -> None:
    """Run a command; a Quit becomes one sentence on stderr and its exit code."""
    try:
        code = app(standalone_mode=False)
    except Quit as error:
        _complain(error.message)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(exit_codes.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        sys.stderr.close()
        sys.exit(exit_codes.OK)
    except typer.Abort:
        sys.exit(exit_codes.INTERRUPTED)
    except typer.TyperException as error:
        _complain(f"{error.format_message()} (millrace --help tells more)")
        sys.exit(exit_codes.BAD_USE)
    sys.exit(code if isinstance(code, int) else exit_codes.OK)


def _complain(message: str) -> None:
    if not message:
        return
    if "--json" in sys.argv:
        import json

        message = json.dumps({"error": message}, ensure_ascii=False)
    else:
        message = f"millrace: {message}"
    sys.stderr.write(message + "\n")


@app.command()
def up(
    demo: Annotated[
        bool, typer.Option("--demo/--no-demo", help="Index the project's own pages and search them.")
    ] = True,
    for_s: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", help="Stop by itself after so long.")
    ] = None,
    exit_after_demo: Annotated[bool, typer.Option(help="Stop as soon as the demo is done.")] = False,
    as_json: Json = False,
) -> int:
    """Start the whole system here and keep it running until Ctrl-C."""
    from app.cli.processes import up as command

    return command.run(demo=demo, for_s=0.0 if exit_after_demo else for_s, as_json=as_json)


@app.command()
def single() -> int:
    """Be the whole system in one foreground process, as a container's only program; logs on stdout."""
    from app.cli.processes import all_in_one as command

    return command.run()


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    mode: Annotated[str, typer.Option(help="hybrid, semantic or keyword.")] = "hybrid",
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many hits.")] = 5,
    domain: Annotated[str | None, typer.Option(help="Only pages of this domain.")] = None,
    as_json: Json = False,
) -> int:
    """Find documents."""
    from app.cli.commands import search as command

    return command.run(query, mode=mode, limit=limit, domain=domain, as_json=as_json)


@models.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="As the hub calls it: BAAI/bge-small-en-v1.5.", metavar="NAME")],
    as_json: Json = False,
) -> int:
    """Bring a model from the Hugging Face hub into the data folder."""
    from app.cli.commands import models as command

    return command.fetch(name, as_json=as_json)


@jobs.command("list")
def jobs_list(
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; may be given again.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    parent: Annotated[str | None, typer.Option(metavar="ID", help="Only children of this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 20,
    as_json: Json = False,
) -> int:
    """The newest jobs."""
    from app.cli.commands import jobs as command

    return command.show_list(states=state or [], kind=kind, parent=parent, limit=limit, as_json=as_json)


@jobs.command("show")
def jobs_show(job_id: JobId, as_json: Json = False) -> int:
    """One job with its attempts, payload and result."""
    from app.cli.commands import jobs as command

    return command.show_one(job_id, as_json=as_json)


@jobs.command("follow")
def jobs_follow(
    job_ids: Annotated[list[str] | None, typer.Argument(help="Ids of jobs.", metavar="ID...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All jobs, until Ctrl-C.")] = False,
    kind: Annotated[str | None, typer.Option(help="With --all: only this kind; shop.* for all such.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="With --all: only this state; may be given again.")] = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="How long; without it, to the end.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Watch jobs until they end; exit code 0 only if all succeeded."""
    from app.cli.client import follow_jobs

    if everything == bool(job_ids):
        raise Quit(exit_codes.BAD_USE, "give ids of jobs, or --all")
    if everything:
        return follow_jobs.follow_all(kinds=kind, states=state or [], timeout_s=timeout_s, as_json=as_json)
    return follow_jobs.follow(job_ids or [], timeout_s=timeout_s, as_json=as_json)


@jobs.command("cancel")
def jobs_cancel(job_id: JobId, as_json: Json = False) -> int:
    """Ask a job to stop."""
    from app.cli.commands import jobs as command

    return command.cancel(job_id, as_json=as_json)


@jobs.command("retry")
def jobs_retry(job_id: JobId, as_json: Json = False) -> int:
    """Run a failed or cancelled job again."""
    from app.cli.commands import jobs as command

    return command.retry(job_id, as_json=as_json)


@jobs.command("explain")
def jobs_explain(job_id: JobId, as_json: Json = False) -> int:
    """The one reason why a job is where it is, and the fix."""
    from app.cli.commands import reasons as command

    return command.explain(job_id, as_json=as_json)


@jobs.command("logs")
def jobs_logs(
    job_id: JobId,
    level: Annotated[str | None, typer.Option(help="Lines of this level and above, for example warning.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Lines of this try alone.")] = None,
    as_json: Json = False,
) -> int:
    """What the job's code has logged."""
    from app.cli.commands import reasons as command

    return command.logs(job_id, level=level, attempt=attempt, as_json=as_json)


@jobs.command("run-now")
def jobs_run_now(job_id: JobId, as_json: Json = False) -> int:
    """Start a job now that waits for its time or its next try."""
    from app.cli.commands import jobs as command

    return command.run_now(job_id, as_json=as_json)


@jobs.command("discard")
def jobs_discard(job_id: JobId, as_json: Json = False) -> int:
    """Take a failed job out of the dead letters."""
    from app.cli.commands import jobs as command

    return command.discard(job_id, as_json=as_json)


@app.command()
def doctor(as_json: Json = False) -> int:
    """Check this machine, its settings and what they point to; each fault with its mending."""
    from app.cli.commands import doctor as command

    return command.run(as_json=as_json)


@config.command("show")
def config_show(as_json: Json = False) -> int:
    """Every setting: value, source, meaning."""
    from app.cli.commands import config as command

    return command.show(as_json=as_json)


@app.command()
def migrate(as_json: Json = False) -> int:
    """Bring the database to the newest schema."""
    from app.cli.commands import migrate as command

    return command.run(as_json=as_json)


@app.command()
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="bash, zsh or fish.", metavar="SHELL")],
) -> int:
    """Print what completes commands at Tab, such as: source <(millrace completion bash)."""
    from app.cli.commands import completion as command

    return command.run(shell, typer.main.get_command(app))


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="A folder that is new or empty.", metavar="DIR")],
    as_json: Json = False,
) -> int:
    """Copy everything that is kept into a folder, while the system runs on."""
    from app.cli.commands import backup as command

    return command.run(folder, as_json=as_json)


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that `millrace backup` wrote.", metavar="DIR")],
    replace: Annotated[bool, typer.Option("--replace", help="Also where the database is not empty.")] = False,
    as_json: Json = False,
) -> int:
    """Bring a backup back; the system must not run."""
    from app.cli.commands import backup as command

    return command.restore(folder, replace=replace, as_json=as_json)
