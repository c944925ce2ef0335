"""Print everything that callers rely on, as sorted JSON, and compare two such prints.

    scripts/contract.py > before.json
    scripts/contract.py --root ../older > before.json      the code of another checkout, with this script
    scripts/contract.py --compare before.json after.json   exit code 1 where they differ

Models are written out in full, so that renaming one changes nothing here. Texts stand in groups of their own.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from scripts import code_scan

Group = dict[str, Any]
# Modules that act when they are imported: they are run as programs, never imported.
PROGRAMS = re.compile(r"(^|\.)__main__$|^app\.migrations|^actors\.(main|periodic)$")
# Names that docs/own-kinds.md has promised to users; they must stay importable whatever the page says later.
PROMISED = (
    "actors.runtime:job_actor",
    "app.core.db:in_transaction",
    "app.core.db:read",
    "app.core.errors",
    "app.core.logging:get_logger",
    "app.jobs.definition:Debounce",
    "app.jobs.definition:Job",
    "app.jobs.definition:Rate",
    "app.jobs.definition:Throttle",
    "app.jobs.enqueue:enqueue",
    "app.jobs.ledger:hold",
    "app.jobs.progress:Progress",
    "app.jobs.testing:drain",
    "app.jobs.testing:ledger",
    "app.jobs.testing:run_inline",
)
_TEXTS = ("title", "description", "example", "examples")


@lru_cache(maxsize=1)
def import_all() -> tuple[list[Any], Group]:
    """Every module of the program, and the faults of those that cannot be imported."""
    imported, faults = [], {}
    for package in code_scan.PACKAGES:
        top = importlib.import_module(package)
        for module in pkgutil.walk_packages(top.__path__, f"{package}."):
            if PROGRAMS.search(module.name):
                continue
            try:
                imported.append(importlib.import_module(module.name))
            except Exception as error:  # noqa: BLE001  the print goes on and shows it
                faults[module.name] = f"{type(error).__name__}: {error}"
    return imported, faults


def instances(imported: Iterable[Any], kind: type) -> Iterator[Any]:
    """Each value of this type that a module holds, once."""
    seen = set()
    for module in imported:
        for value in list(vars(module).values()):
            if isinstance(value, kind) and id(value) not in seen:
                seen.add(id(value))
                yield value


def flat_schema(schema: Any, schemas: dict[str, Any], path: str = "", seen: tuple[str, ...] = ()) -> Iterator[str]:
    """A JSON schema as `path: constraints` lines, references replaced by what they point to."""
    if not isinstance(schema, dict):
        yield f"{path or '.'}: {json.dumps(schema)}"
        return
    if name := schema.get("$ref"):
        if name in seen:
            yield f"{path or '.'}: (recursive)"
        else:
            yield from flat_schema(schemas.get(name.rpartition("/")[2], {}), schemas, path, (*seen, name))
        return
    inner = ("properties", "items", "anyOf", "oneOf", "allOf", "required", "additionalProperties", "$defs", *_TEXTS)
    own = {name: value for name, value in schema.items() if name not in inner}
    more = schema.get("additionalProperties")
    if isinstance(more, bool):
        own["additionalProperties"] = more
    yield f"{path or '.'}: {json.dumps(own, sort_keys=True, default=str)}"
    if isinstance(more, dict):
        yield from flat_schema(more, schemas, f"{path}.*", seen)
    for name, field in schema.get("properties", {}).items():
        mark = "" if name in schema.get("required", []) else "?"
        yield from flat_schema(field, schemas, f"{path}.{name}{mark}", seen)
    if "items" in schema:
        yield from flat_schema(schema["items"], schemas, f"{path}[]", seen)
    for word in ("anyOf", "oneOf", "allOf"):
        for option in schema.get(word, []):
            yield from flat_schema(option, schemas, f"{path}|" if word != "allOf" else path, seen)


def shape(schema: Any, schemas: dict[str, Any]) -> list[str]:
    return sorted(set(flat_schema(schema, schemas)))


def api(document: dict[str, Any], routes: Iterable[Any]) -> tuple[Group, Group]:
    """Routes with parameters, bodies and answers; and their texts."""
    facts: Group = {}
    texts: Group = {}
    schemas = document.get("components", {}).get("schemas", {})
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = f"{method.upper()} {path}"
            _operation(name, operation, schemas, facts)
            for word in ("operationId", "summary", "description", "tags"):
                texts[f"{name} {word}"] = operation.get(word)
    facts |= {f"served {name}": True for name in served(routes)}
    return facts, texts


def served(routes: Iterable[Any], prefix: str = "") -> Iterator[str]:
    """Every path that is served with its methods, those that the OpenAPI document leaves out included."""
    for route in routes:
        if hasattr(route, "path"):
            yield f"{prefix}{route.path} {','.join(sorted(getattr(route, 'methods', None) or ['WEBSOCKET']))}"
        elif hasattr(route, "original_router"):
            yield from served(route.original_router.routes, prefix + getattr(route.include_context, "prefix", ""))


def _operation(name: str, operation: dict[str, Any], schemas: dict[str, Any], facts: Group) -> None:
    facts[f"{name} security"] = operation.get("security", [])
    for parameter in operation.get("parameters", []):
        where = f"{name} {parameter['in']} {parameter['name']}{'' if parameter.get('required') else '?'}"
        facts[where] = shape(parameter.get("schema"), schemas)
    body = operation.get("requestBody", {})
    for media, content in body.get("content", {}).items():
        mark = "" if body.get("required") else "?"
        facts[f"{name} body{mark} {media}"] = shape(content.get("schema"), schemas)
    for status, answer in operation.get("responses", {}).items():
        facts[f"{name} answers {status}"] = sorted(answer.get("content", {})) + sorted(answer.get("headers", {}))
        for media, content in answer.get("content", {}).items():
            if media != "application/problem+json":
                facts[f"{name} answers {status} {media}"] = shape(content.get("schema"), schemas)


def command_line(imported: list[Any]) -> tuple[Group, Group]:
    """Each command with its arguments and options; and their help texts."""
    import typer

    facts: Group = {}
    texts: Group = {}
    for app in instances(imported, typer.Typer):
        if app.info.name == "millrace":
            for path, command in commands(typer.main.get_command(app), "millrace"):
                facts[path] = {"hidden": bool(command.hidden)} if command.hidden else {}
                texts[path] = [command.help or "", command.epilog or ""]
                for parameter in command.params:
                    name = f"{path} {parameter_name(parameter)}"
                    facts[name] = _parameter(parameter)
                    texts[name] = getattr(parameter, "help", None) or ""
    entry = importlib.import_module("app.__main__")
    for name, value in vars(entry).items():
        if name.isupper() and isinstance(value, tuple | dict):
            facts |= {f"process {word}": True for word in value}
    return facts, texts


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The command and all below it, each with the words that call it."""
    yield path, command
    for word, inner in sorted(getattr(command, "commands", {}).items()):
        yield from commands(inner, f"{path} {word}")


def parameter_name(parameter: Any) -> str:
    """The options it answers to; an argument is named as in `--help`."""
    return " / ".join([*parameter.opts, *parameter.secondary_opts])


def _parameter(parameter: Any) -> Group:
    names = ("required", "multiple", "is_flag", "hidden", "metavar", "min", "max", "envvar")
    about = {name: getattr(parameter, name, None) for name in names}
    about |= {"type": str(parameter.type_descriptor.annotation), "default": str(parameter.default)}
    return {name: value for name, value in about.items() if value not in (None, False, "None")}


def kinds(imported: list[Any]) -> tuple[Group, Group]:
    """Kinds of job with everything that decides how one runs, and the fields of its payload; and their texts."""
    definition = importlib.import_module("app.jobs.definition")
    facts: Group = {}
    texts: Group = {}
    for name in definition.kinds():
        kind = definition.definition(name)
        if kind.__module__.partition(".")[0] not in code_scan.PACKAGES:
            continue
        schema = kind.model_json_schema()
        options = {option: getattr(kind, option) for option in sorted(definition.Job.__class_vars__)}
        options = {option: "yes" if callable(value) else str(value) for option, value in options.items()}
        facts[name] = options | {"payload": shape(schema, schema.get("$defs", {}))}
        texts[name] = inspect.getdoc(kind)
    return facts, texts


def schedules(imported: list[Any]) -> Group:
    """Schedules that are part of the program."""
    facts: Group = {}
    for table in instances(imported, dict):
        for value in table.values():
            if type(value).__name__ == "Schedule":
                facts[f"{value.tenant}/{value.name}"] = str(value.plan())
    return facts


def settings() -> tuple[Group, Group]:
    module = importlib.import_module("app.core.settings")
    facts: Group = {}
    texts: Group = {}
    for name, field in module.Settings.model_fields.items():
        variable = f"{module.PREFIX}{name.upper()}"
        default = field.get_default(call_default_factory=True)
        facts[variable] = {"default": str(default), "type": str(field.annotation)}
        texts[variable] = field.description
    return facts, texts


def metrics() -> tuple[Group, Group]:
    """Metrics of the one registry: type and labels; and their texts."""
    registry = importlib.import_module("app.core.metrics").REGISTRY
    facts: Group = {}
    texts: Group = {}
    for metric in set(registry._collector_to_names):
        for family in metric.describe():
            facts[family.name] = {"type": family.type, "labels": list(getattr(metric, "_labelnames", ()))}
            buckets = getattr(metric, "_upper_bounds", None)
            facts[family.name] |= {"buckets": buckets} if buckets else {}
            texts[family.name] = family.documentation
    return facts, texts


def error_codes(root: Path) -> Group:
    """Each code and the HTTP statuses it is answered with; a class that no door knows is answered with 500."""
    base = importlib.import_module("app.core.errors").AppError
    statuses = status_table()
    classes = {kind.__name__: kind for kind in subclasses(base)}
    facts: dict[str, set[str]] = {}
    for use in code_scan.error_codes(root):
        kind = classes.get(use.raised_as)
        status = use.status or (status_of(kind, use.code, statuses) if kind else None)
        facts.setdefault(use.code, set()).add(str(status) if status else "of a job")
    return {code: sorted(statuses) for code, statuses in facts.items()}


def status_table() -> dict[type, int]:
    """The table of the API from class to status, wherever it is."""
    for name, module in list(sys.modules.items()):
        table = getattr(module, "STATUS", None) if name.startswith(("app.api", "app.core")) else None
        if isinstance(table, dict):
            return table
    raise LookupError("app.api has no table STATUS")


def status_of(kind: type, code: str, statuses: dict[type, int]) -> int:
    if code == "unauthenticated":
        return 401
    return next((statuses[base] for base in kind.__mro__ if base in statuses), 500)


def subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


def tables() -> Group:
    base = importlib.import_module("app.core.db").Base
    facts: Group = {}
    for table in base.metadata.tables.values():
        for column in table.columns:
            about = [str(column.type), "NULL" if column.nullable else "NOT NULL"]
            about += ["PRIMARY KEY"] * column.primary_key + [str(key.target_fullname) for key in column.foreign_keys]
            facts[f"{table.name}.{column.name}"] = " ".join(about)
        facts[f"{table.name} indexes"] = sorted(
            f"{index.name}({', '.join(map(str, index.expressions))}){' unique' * bool(index.unique)}"
            for index in table.indexes
        )
        facts[f"{table.name} constraints"] = sorted(str(constraint.name) for constraint in table.constraints)
    return facts


def migrations(root: Path) -> Group:
    files = sorted(path.name for path in (root / "app" / "migrations" / "versions").glob("[0-9]*_*.py"))
    return {"head": files[-1].partition("_")[0], "files": files}


def promised(root: Path) -> Group:
    """Names that users import, with their signatures; those of PROMISED and those of docs/own-kinds.md."""
    names = set(PROMISED)
    page = (root / "docs" / "own-kinds.md").read_text()
    for module, imported in re.findall(r"^from ((?:app|actors)[\w.]*) import ([\w, ]+)$", page, re.MULTILINE):
        names |= {f"{module}:{name.split(' as ')[0].strip()}" for name in imported.split(",")}
    return {name: _signature(name) for name in names}


def _signature(name: str) -> str:
    module, _, attribute = name.partition(":")
    try:
        value = importlib.import_module(module)
        value = getattr(value, attribute) if attribute else value
    except (ImportError, AttributeError) as error:
        return f"missing: {error}"
    if not callable(value):
        return "importable"
    # Annotations name classes, which may be renamed.
    parameters = inspect.signature(value).parameters.values()
    return ", ".join(str(parameter.replace(annotation=inspect.Parameter.empty)) for parameter in parameters)


def vocabulary() -> Group:
    """States, queues, event names and the like: constants that callers see, by value."""
    facts: Group = {}
    for name, attribute in (("app.jobs.states", "STATES"), ("app.jobs.queues", "QUEUES")):
        facts[attribute] = list(getattr(importlib.import_module(name), attribute))
    return facts


def contract(root: Path) -> dict[str, Group]:
    """Everything, in groups."""
    imported, faults = import_all()
    app = importlib.import_module("app.main").create_app()
    groups: dict[str, Group] = {"not importable": faults}
    both: dict[str, Callable[[], tuple[Group, Group]]] = {
        "routes": lambda: api(json.loads(json.dumps(app.openapi(), default=str)), app.routes),
        "command line": lambda: command_line(imported),
        "kinds": lambda: kinds(imported),
        "settings": settings,
        "metrics": metrics,
    }
    for name, make in both.items():
        groups[name], groups[f"{name}, texts"] = make()
    groups |= {
        "error codes": error_codes(root),
        "schedules": schedules(imported),
        "tables": tables(),
        "migrations": migrations(root),
        "names for users": promised(root),
        "words": vocabulary(),
        "redis keys": dict.fromkeys(code_scan.redis_keys(root), True),
        "redis keys, texts": dict.fromkeys(code_scan.redis_table(root), True),
        "variables": dict.fromkeys(code_scan.variables(root), True),
        "log events": {f"{call.event} {call.level}": True for call in code_scan.log_calls(root)},
    }
    return groups


def compare(before: dict[str, Group], after: dict[str, Group]) -> Iterator[str]:
    """The differences, in groups."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, {}), after.get(name, {})
        lines = [f"  gone    {key}" for key in sorted(old.keys() - new.keys())]
        lines += [f"  new     {key}" for key in sorted(new.keys() - old.keys())]
        for key in sorted(old.keys() & new.keys()):
            if old[key] != new[key]:
                lines += [f"  changed {key}", *_changes(old[key], new[key])]
        if lines:
            yield f"{name}: {sum(line[2] != ' ' for line in lines)} differences"
            yield from lines


def _changes(old: Any, new: Any) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        return [line for name in names for line in [f"      {name}", *_changes(old.get(name), new.get(name))]]
    if isinstance(old, list) and isinstance(new, list):
        gone, more = [line for line in old if line not in new], [line for line in new if line not in old]
        return [f"        - {line}" for line in gone] + [f"        + {line}" for line in more]
    return [f"        - {old}", f"        + {new}"]


def _elsewhere(root: Path) -> int:
    """Run this script with the code of another checkout."""
    paths = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, __file__, "--here", str(root)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, check=False).returncode


def _here(root: Path) -> int:
    """Print the contract of the code that this process imports; settings of this machine play no part."""
    for name in [name for name in os.environ if name.startswith("MILLRACE_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        groups = contract(root)
        os.chdir(root)
    where = Path(importlib.import_module("app").__file__ or "").parents[1]
    if where != root:
        sys.exit(f"contract: app was imported from {where}, not from {root}")
    print(json.dumps(groups, indent=1, sort_keys=True, ensure_ascii=False).replace(folder, "(working directory)"))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Print everything that callers rely on, or compare two prints.")
    parser.add_argument("--root", type=Path, help="another checkout, whose code is to be printed")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    options = parser.parse_args()
    if options.compare:
        before, after = (json.loads(path.read_text()) for path in options.compare)
        lines = list(compare(before, after))
        print("\n".join(lines) or "no difference")
        return 1 if lines else 0
    if options.here:
        return _here(options.here)
    return _elsewhere((options.root or Path(__file__).parents[1]).resolve())


if __name__ == "__main__":
    sys.exit(main())
