"""Parsers of foreign bytes: whose fault a crash is, and the closed box in which they run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput, SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded
from app.jobs.sandbox import outputs
from app.jobs.sandbox.call import SandboxCall, parse
from tests.support.sandbox_rig import HERE, call, on_linux


def parse_by(name: str, folder: Path, **options: Any) -> Any:
    blob = folder / "document"
    blob.write_text("")
    options = {"time_limit_s": 30, "memory_mb": 300} | options
    return asyncio.run(parse(f"{HERE}:{name}", options.pop("arguments", {}), blob=blob, **options))


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text())


@pytest.mark.parametrize("how", ["segfault", "abort", "exit", "answer"])
def test_a_second_crash_on_a_document_is_its_fault(how: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="its parser crashed twice: ") as caught:
        parse_by("crash_on", tmp_path, arguments={"how": how, "times": 9})
    assert caught.value.code == "broken_document"
    assert runs(tmp_path) == 2


def test_one_crash_is_forgiven(tmp_path: Path) -> None:
    assert parse_by("crash_on", tmp_path, arguments={"how": "segfault", "times": 1}) == "read"
    assert runs(tmp_path) == 2


def test_a_kill_from_outside_is_not_the_documents_fault(tmp_path: Path) -> None:
    """The kernel kills any process when the machine's memory runs out: a later try may end well."""
    with pytest.raises(SandboxCrashed):
        parse_by("kill_from_outside", tmp_path)
    assert runs(tmp_path) == 1


def test_too_much_processor_time_is_the_documents_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="CPU") as caught:
        parse_by("spin_on", tmp_path, cpu_s=1)
    assert caught.value.code == "broken_document"
    assert runs(tmp_path) == 1


def test_a_wall_clock_limit_is_not_the_documents_fault(tmp_path: Path) -> None:
    with pytest.raises(TimeLimitExceeded):
        parse_by("spin_on", tmp_path, time_limit_s=0.3)
    assert runs(tmp_path) == 1


def test_endless_recursion_is_the_documents_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nested too deeply") as caught:
        parse_by("recurse_on", tmp_path)
    assert caught.value.code == "broken_document"


@on_linux
def test_a_call_is_closed_unless_it_says_otherwise(tmp_path: Path) -> None:
    arguments = {"path": str(tmp_path.parent / "outside")}
    (tmp_path / "document").write_text("")
    closed = SandboxCall(f"{HERE}:touch", arguments, blob=tmp_path / "document", time_limit_s=30, memory_mb=300)
    with pytest.raises(Exception, match="Permission denied"):
        closed.run()
    call("touch", path=str(tmp_path / "inside"), blob=tmp_path / "document", access="closed")
    assert (tmp_path / "inside").exists()


@on_linux
def test_only_named_programs_are_started_and_they_start_no_other(tmp_path: Path) -> None:
    (tmp_path / "document").write_text("")
    options: dict[str, Any] = {"blob": tmp_path / "document", "access": "closed"}
    assert call("run_program", name="echo", words=["hello"], programs=["echo"], **options) == "hello\n"
    with pytest.raises(Exception, match="may not be started"):
        call("run_program", name="cat", words=["/etc/passwd"], programs=["echo"], **options)
    shell = call(
        "run_program", name="sh", words=["-c", "sleep 0 || echo denied; cat < /etc/passwd"], programs=["sh"], **options
    )
    assert "root" not in shell
    with pytest.raises(Exception, match="Operation not permitted"):
        call("run_program", name="echo", words=[], **options)


@on_linux
def test_memory_of_a_program_is_limited(tmp_path: Path) -> None:
    (tmp_path / "document").write_text("")
    options: dict[str, Any] = {"blob": tmp_path / "document", "access": "closed", "memory_mb": 300}
    shell = call("run_program", name="sh", words=["-c", "ulimit -v; ulimit -c; ulimit -f"], programs=["sh"], **options)
    assert "unlimited" not in shell
    assert shell.split()[1] == "0"


def test_an_output_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    (tmp_path / "text.md").symlink_to(tmp_path / "secret")
    with pytest.raises(SandboxCrashed):
        outputs.read_text(tmp_path / "text.md")
    with pytest.raises(SandboxCrashed):
        outputs.read_text(tmp_path)
    assert not outputs.is_plain_file(tmp_path / "text.md")
    assert outputs.is_plain_file(tmp_path / "secret")
    assert outputs.read_text(tmp_path / "secret") == "s3cret"


def test_memory_over_the_limit_is_refused_and_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(SandboxOutOfMemory):
        parse_by("allocate_on", tmp_path, arguments={"mib": 500})
    assert runs(tmp_path) == 1
