"""Promises that hold for the whole tree: floors, what an import brings along, documents that keep up."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from app import __version__
from app.cli.local.setting_list import list_settings
from app.core.settings import PREFIX, Settings, get_settings
from tests.support.databases import SettingsEnv
from tests.support.stack import REPOSITORY

BIN = Path(sys.executable).parent


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=55, check=False)


def test_imports_point_down_the_floors() -> None:
    ran = _run(str(BIN / "lint-imports"), "--no-cache")
    assert ran.returncode == 0, ran.stdout


def test_the_api_loads_no_actor() -> None:
    """The inserting program holds no worker code, and neither does it load what only the worker computes with."""
    heavy = "{'actors', 'periodiq', 'qdrant_client', 'onnxruntime', 'fastembed', 'trafilatura', 'lxml'}"
    names = f"import app.main, sys; print(*[name for name in sys.modules if name.split('.')[0] in {heavy}])"
    ran = _run(sys.executable, "-c", names)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []


def test_worker_imports_no_migration_or_parser_libraries() -> None:
    heavy = "{'alembic', 'mako', 'trafilatura', 'lxml', 'wordllama'}"
    code = f"import actors.main, sys; print(*[name for name in sys.modules if name.split('.')[0] in {heavy}])"
    ran = _run(sys.executable, "-c", code)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['millrace', '--help']\nfrom app.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*[name for name in ('numpy', 'trafilatura', 'sqlalchemy', 'httpx', 'pydantic') if name in sys.modules])"
    )
    ran = _run(sys.executable, "-c", code)
    assert ran.stdout.splitlines()[-1].split() == [], ran.stdout


def test_every_setting_has_a_meaning() -> None:
    nameless = [name for name, field in Settings.model_fields.items() if not field.description]
    assert nameless == []


def test_reference_pages_match_the_program() -> None:
    ran = _run(sys.executable, "scripts/reference_pages.py", "--check")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_documents_name_existing_settings_only() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]:
        words = path.read_text().replace("`", " ").replace("=", " ").replace("$", " ").split()
        named = {word.strip('.,:;()"*/|') for word in words if PREFIX in word}
        unknown = {n for n in named if n.startswith(PREFIX)} - known - {f"{name}_FILE" for name in known}
        assert unknown == set(), path


def test_no_secret_is_shown(settings_env: SettingsEnv) -> None:
    settings_env(redis_url="redis://:hidden-one@127.0.0.1:1/0", api_secret="hidden-two-0123456789abcdefghijklmn")
    rows = list_settings(get_settings())
    assert "hidden" not in str(rows)
    assert {row["name"] for row in rows} == {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def test_the_version_is_written_in_one_place() -> None:
    """Releases change one line; the wheel, the API, workers' rows and the image's label take it from there."""
    version = re.compile(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])")
    places = [REPOSITORY / name for name in ("pyproject.toml", "Dockerfile", "Makefile", "supervisord.conf")]
    for folder in ("app", "actors", "scripts", "deploy"):
        places += [path for path in (REPOSITORY / folder).rglob("*") if path.suffix in (".py", ".sh", ".yaml")]
    assert [path.name for path in places if version.search(path.read_text())] == ["__init__.py"]
    assert importlib.metadata.version("millrace") == __version__


def _imports(path: Path) -> Iterator[str]:
    """Return the dotted names that a file imports, the names of its `from` imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def _is_test_module(name: str) -> bool:
    return name.rpartition(".")[2].startswith("test_") and (REPOSITORY / f"{name.replace('.', '/')}.py").is_file()


def test_no_module_imports_from_a_test_module() -> None:
    """Shared helpers are in tests/support, tests/fakes, a conftest or a module without the prefix."""
    wrong = [
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in sorted((REPOSITORY / "tests").rglob("*.py"))
        for name in _imports(path)
        if any(part.startswith("test_") for part in name.split(".")[:-1]) or _is_test_module(name)
    ]
    assert wrong == []


def test_the_unit_tests_mirror_the_packages() -> None:
    """Each folder of tests/unit that holds tests has a package of the same path in app, or is actors or scripts."""
    unit = REPOSITORY / "tests" / "unit"
    folders = {path.parent.relative_to(unit) for path in unit.rglob("test_*.py")} - {Path()}
    homes = {folder: folder if str(folder) in ("actors", "scripts") else "app" / folder for folder in folders}
    assert [str(folder) for folder, home in homes.items() if not (REPOSITORY / home / "__init__.py").is_file()] == []
