"""Functions of kinds are checked when they are declared; a module that cannot be used is one sentence."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ConfigError
from app.jobs import definition as definitions
from app.jobs import functions
from app.jobs.definition import Job
from app.jobs.definition_checks import DefinitionError
from tests.support.command import millrace
from tests.support.stack import API_SECRET

MODULE = """
from actors.runtime import job_actor
from app.jobs.definition import Job

class Receipt(Job, kind="tests.modules.receipt"{options}):
    {field}

{code}
"""
GOOD = "@job_actor(Receipt)\ndef send(job, progress):\n    return None"


@pytest.fixture(autouse=True)
def _kinds_of_this_test() -> Iterator[None]:
    before, declared, modules = dict(definitions._registry), dict(functions._declared), set(sys.modules)
    yield
    for registry, old in ((definitions._registry, before), (functions._declared, declared)):
        registry.clear()
        registry.update(old)  # type: ignore[arg-type]
    for name in set(sys.modules) - modules:
        if name.startswith("shop_"):
            del sys.modules[name]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Write a module with a kind and return its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(code: str = GOOD, options: str = "", field: str = "number: int = 0", name: str = "shop_jobs") -> str:
        (tmp_path / f"{name}.py").write_text(MODULE.format(code=code, options=options, field=field))
        return name

    return write


class Parcel(Job, kind="tests.functions.parcel"):
    """A kind without a function."""


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda: None, r"must take two arguments: \(job, progress\)"),
        (lambda job: None, "must take two arguments"),
        (lambda job, progress, more: None, "must take two arguments"),
        (lambda *, job, progress: None, "must take two arguments"),
        (functools.partial(lambda job, progress: None), "is run by a function"),
        ("send", "is run by a function"),
        (Parcel, "is run by a function"),
    ],
)
def test_a_function_that_could_not_run_a_job_is_refused(function: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=f"Parcel: .*{reason}"):
        functions.declare(Parcel, function)


def test_a_function_that_yields_is_refused() -> None:
    def plain(job: Any, progress: Any) -> Iterator[int]:
        yield 1

    async def awaited(job: Any, progress: Any) -> Any:
        yield 1

    for function in (plain, awaited):
        with pytest.raises(DefinitionError, match="yields"):
            functions.declare(Parcel, function)


def test_function_with_optional_parameters_is_accepted() -> None:
    def send(job: Any, progress: Any, dry: bool = False, **more: Any) -> None: ...

    functions.declare(Parcel, send)
    assert functions.function_of("tests.functions.parcel") == (Parcel, send)


def test_two_functions_cannot_run_one_kind() -> None:
    def send(job: Any, progress: Any) -> None: ...
    def post(job: Any, progress: Any) -> None: ...

    functions.declare(Parcel, send)
    with pytest.raises(DefinitionError, match=r"has two functions: .*send and .*post"):
        functions.declare(Parcel, post)


def test_a_good_module_is_imported(module: Callable[..., str]) -> None:
    functions.import_modules([module()])
    assert functions.function_of("tests.modules.receipt") is not None


WRONG_MODULES = {
    "option": ({"options": ", retry_delays=(60)"}, "shop_jobs: Receipt: retry_delays must be a tuple of seconds"),
    "secret": ({"field": "token: __import__('pydantic').SecretStr"}, "shop_jobs: Receipt: 'token' is a secret"),
    "signature": ({"code": GOOD.replace("job, progress", "job")}, "shop_jobs: Receipt: send must take two arguments"),
    "raises": ({"code": "open('/nowhere')"}, r"shop_jobs cannot be imported: FileNotFoundError: .*shop_jobs.py:8\)"),
    "syntax": ({"code": "def send(:"}, "shop_jobs cannot be imported: SyntaxError: "),
    "exits": ({"code": "raise SystemExit"}, "shop_jobs cannot be imported: SystemExit: no message"),
    "imports": ({"code": "import nowhere_at_all"}, "shop_jobs cannot be imported: No module named 'nowhere_at_all'"),
    "closure": (
        {"code": "def make():\n    @job_actor(Receipt)\n    def send(job, progress): ...\nmake()"},
        "the function of 'tests.modules.receipt' cannot be run in a child process: .*at the top level",
    ),
    "unwrapped": (
        {"code": "def log(f):\n    return lambda job, progress: f(job, progress)\n@job_actor(Receipt)\n@log\n"
                 "def send(job, progress): ..."},
        "cannot be run in a child process",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_MODULES)
def test_invalid_module_is_one_sentence_with_its_name(module: Callable[..., str], case: str) -> None:
    parts, sentence = WRONG_MODULES[case]
    with pytest.raises(ConfigError, match=f"MILLRACE_MODULES: .*{sentence}") as refusal:
        functions.import_modules([module(**parts)])
    assert "\n" not in refusal.value.message


def test_a_wrapper_that_keeps_the_name_is_accepted(module: Callable[..., str]) -> None:
    code = (
        "import functools\ndef log(f):\n    @functools.wraps(f)\n    def inner(*args):\n        return f(*args)\n"
        "    return inner\n@job_actor(Receipt)\n@log\ndef send(job, progress): ..."
    )
    functions.import_modules([module(code)])
    assert functions.function_of("tests.modules.receipt") is not None


def test_two_modules_with_one_kind_are_refused(module: Callable[..., str]) -> None:
    first, second = module(), module(name="shop_copy")
    with pytest.raises(ConfigError, match=r"shop_copy: kind 'tests.modules.receipt' is defined twice"):
        functions.import_modules([first, second])


@pytest.mark.parametrize("process", ["api", "worker", "scheduler", "relay"])
def test_each_process_ends_with_the_sentence_and_exit_code_2(
    module: Callable[..., str], tmp_path: Path, process: str
) -> None:
    name = module(options=", retry_delays=(60)")
    env = {"MILLRACE_MODULES": name, "PATH": os.environ["PATH"], "MILLRACE_API_SECRET": API_SECRET}
    ended = millrace(process, env=env, cwd=tmp_path)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    sentence = "Receipt: retry_delays must be a tuple of seconds such as (60,), or None, not 60"
    assert f"millrace {process}: MILLRACE_MODULES: {name}: {sentence}" in ended.err.splitlines()
