"""Arguments, results, errors and log lines of sandbox calls."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import (
    AppError,
    Cancelled,
    InvalidInput,
    LimitReached,
    Rejected,
    SandboxCrashed,
    Snooze,
    Unavailable,
)
from app.core.logging import bind, unbind
from app.jobs.sandbox import process_pool
from app.jobs.sandbox.call import SandboxCall
from app.jobs.sandbox.protocol import SandboxFailed
from tests.support import sandbox_functions, sandbox_jobs
from tests.support.sandbox_rig import HERE, call, make


def test_result_comes_back() -> None:
    """JSON in, JSON out, from another process."""
    assert call("add", left=2, right=3) == 5
    assert call("echo", value={"a": [1, None, "ü\ud800"]}) == {"a": [1, None, "ü\ud800"]}
    assert sandbox_functions.group()[0] not in call("group")


def test_function_is_given_as_object() -> None:
    """A function of a module may be handed over itself; one without a name may not."""
    assert SandboxCall(sandbox_functions.add, {"left": 1, "right": 1}, time_limit_s=5, memory_mb=None).run() == 2
    with pytest.raises(ValueError, match="cannot be called in a sandbox"):
        SandboxCall(lambda: 1, {}, time_limit_s=5, memory_mb=None)


def test_blob_is_a_path(tmp_path: Path) -> None:
    """Arguments that are too large for a line are passed as a file."""
    (tmp_path / "page.html").write_text("<p>hello")
    assert call("read", blob=tmp_path / "page.html") == "<p>hello"


def test_arguments_have_a_limit() -> None:
    """Over 1 MiB of arguments never leave the host."""
    assert len(call("echo", value="x" * 1_000_000)) == 1_000_000
    with pytest.raises(InvalidInput, match="as blob"):
        make("echo", value="x" * 1_100_000)


def test_results_have_a_limit(tmp_path: Path) -> None:
    """A result over 16 MiB, or none in JSON, is a clear error that no retry would fix."""
    (tmp_path / "large").write_text("x" * 17_000_000)
    with pytest.raises(SandboxFailed, match="write it to a file") as large:
        call("read", blob=tmp_path / "large")
    (tmp_path / "fits").write_text("x" * 16_000_000)
    assert len(call("read", blob=tmp_path / "fits")) == 16_000_000
    with pytest.raises(SandboxFailed, match="not JSON") as odd:
        SandboxCall("builtins:complex", {"real": 1}, time_limit_s=5, memory_mb=None).run()
    assert large.value.permanent
    assert odd.value.permanent


def test_plain_job() -> None:
    """A job's payload becomes its definition again inside; one that is not valid (any more) is final."""
    heard: list[dict[str, Any]] = []
    definition = f"{sandbox_jobs.__name__}:Add"
    options: dict[str, Any] = {"time_limit_s": 5, "memory_mb": None}
    payload = {"left": 1, "right": 2}
    call_of_job = SandboxCall.of_job(definition, payload, sandbox_jobs.add, on_progress=heard.append, **options)
    assert call_of_job.run() == {"sum": 3}
    assert heard == [{"done": 1, "total": 1, "stage": "add"}]
    with pytest.raises(InvalidInput, match="payload is not valid") as caught:
        SandboxCall.of_job(definition, {"left": "x"}, sandbox_jobs.add, **options).run()
    assert {fault["field"] for fault in caught.value.errors} == {"left", "right"}


# Progress


def test_progress_is_thinned_out_but_its_end_is_not() -> None:
    """Twenty reports a second at most, the first of a stage and the very last among them."""
    heard: list[dict[str, Any]] = []
    started = time.monotonic()
    assert call("count", to=20_000, on_progress=heard.append) == 20_000
    took_s = time.monotonic() - started
    assert heard[0] == {"total": 20_000, "unit": "numbers", "stage": "count"}
    assert heard[-1]["done"] == 20_000
    assert len(heard) <= 3 + 20 * took_s
    numbers = [report["done"] for report in heard[1:]]
    assert numbers == sorted(numbers)


def test_held_back_report_follows_by_itself(tmp_path: Path) -> None:
    """A report that came too soon after another is sent while the function goes on."""
    sign = tmp_path / "heard"

    def on_progress(report: dict[str, Any]) -> None:
        if report["done"] == 2:
            sign.touch()

    call("report_and_wait", until=str(sign), on_progress=on_progress)
    assert sign.exists()


def test_error_of_the_listener_ends_the_call() -> None:
    """A listener may stop the run, like a job whose fence has moved."""

    def on_progress(_: dict[str, Any]) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        call("count", to=1000, on_progress=on_progress)
    assert call("add", left=1, right=1) == 2


# Errors


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("invalid", InvalidInput),
        ("malformed", InvalidInput),
        ("limit", LimitReached),
        ("later", Snooze),
        ("unavailable", Unavailable),
        ("unavailable-plain", Unavailable),
        ("rejected", Rejected),
    ],
)
def test_own_errors_keep_their_class(name: str, kind: type[AppError]) -> None:
    """An error of our tree is raised as its class, with all it carries and where it was raised."""
    with pytest.raises(AppError) as caught:
        call("fail", error=name)
    original = sandbox_functions.ERRORS[name]
    assert isinstance(original, AppError)
    assert type(caught.value) is kind
    assert caught.value.message == original.message
    assert (caught.value.code, caught.value.errors) == (original.code, original.errors)
    assert getattr(caught.value, "retry_after_s", None) == getattr(original, "retry_after_s", None)
    assert "in fail" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("name", "type_name", "message"),
    [
        ("foreign", "ZeroDivisionError", "by nought"),
        ("exit", "SystemExit", "bye"),
        ("nameless", "Nameless", "<the error has no printable message>"),
    ],
)
def test_foreign_errors_keep_name_and_traceback(name: str, type_name: str, message: str) -> None:
    """Any other error comes as SandboxFailed: its name, its words, its traceback."""
    with pytest.raises(SandboxFailed) as caught:
        call("fail", error=name)
    assert (caught.value.type_name, caught.value.message) == (type_name, message)
    assert "in fail" in caught.value.traceback
    assert not caught.value.permanent


def test_unknown_function() -> None:
    """A name that leads nowhere is an error of the call, not of the sandbox."""
    with pytest.raises(SandboxFailed, match=r"AttributeError: .*no_such"):
        call("no_such")


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("segfault", {}, "killed by SIGSEGV"),
        ("kill_self", {}, "killed by SIGKILL"),
        ("leave", {"status": 0}, "exited with status 0"),
        ("leave", {"status": 3}, "exited with status 3"),
        ("close_channel", {}, "closed its channel"),
        ("say", {"text": "no frame\n"}, "unreadable frame"),
        ("say", {"text": "[1]\n"}, "unreadable frame"),
        ("say", {"text": "[" * 100_000 + "\n"}, "unreadable frame"),
        ("say", {"text": '{"strange": 1}\n'}, "unreadable frame"),
        ("say", {"text": '{"error": {"type": 1}}\n'}, "unreadable frame"),
        ("say", {"text": '{"progress": 1}\n'}, "unreadable frame"),
    ],
)
def test_crash_and_garbage(name: str, arguments: dict[str, Any], words: str) -> None:
    """A sandbox that dies or lies is one clear error, and the next call finds a good sandbox."""
    with pytest.raises(SandboxCrashed, match=words):
        call(name, **arguments)
    assert call("add", left=1, right=1) == 2


def test_prints_do_not_reach_the_channel(capfd: pytest.CaptureFixture[str], one_sandbox: None) -> None:
    """Output of Python or C to fd 1 goes to the host's stderr."""
    process_pool.stop_pool()
    process_pool.start_pool(1, preload=[HERE])  # here, not in a fixture: there stderr is not the captured one yet
    assert call("make_noise") == "the truth"
    process_pool.stop_pool()
    said = capfd.readouterr()
    assert said.out == ""
    for words in ("printed", "written to fd 1", "said by C"):
        assert words in said.err


def test_log_lines_carry_the_hosts_context(capfd: pytest.CaptureFixture[str], one_sandbox: None) -> None:
    """A line logged inside names the job it belongs to, and the next call's does not."""
    process_pool.stop_pool()
    process_pool.start_pool(1)
    bind(job_id="job-7")
    try:
        SandboxCall(sandbox_jobs.log, {"event": "first"}, time_limit_s=30, memory_mb=None, access="open").run()
    finally:
        unbind("job_id")
    SandboxCall(sandbox_jobs.log, {"event": "second"}, time_limit_s=30, memory_mb=None, access="open").run()
    process_pool.stop_pool()
    first, second = (json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{"))
    assert (first["event"], first["job_id"], first["role"]) == ("first", "job-7", "lane")
    assert (second["event"], second.get("job_id"), second["role"]) == ("second", None, "lane")


# Limits
