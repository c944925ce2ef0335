"""openapi-python-client makes a client of our OpenAPI document that skips no route and has typed results."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

from app.jobs.definition import Job
from app.main import create_app
from tests.support.stack import API_SECRET
from tests.unit.api.conftest import Api

CONFIGURATION = Path(__file__).parents[3] / "support" / "openapi_client.yaml"
PACKAGE = "generated_millrace_client"


class Parcel(Job, kind="tests.client.parcel", open_to="write"):
    number: int = 0


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app().openapi()


@pytest.fixture(scope="module")
def client(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The generated package. The tool fails on any warning, such as a route that it skips."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
    command += ["--path", "openapi.json", "--output-path", PACKAGE, "--config", str(CONFIGURATION)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(PACKAGE)
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def test_every_route_is_a_function(document: dict[str, Any], client: ModuleType) -> None:
    for operation in operations(document):
        module = importlib.import_module(f"{PACKAGE}.api.{operation['tags'][0]}.{operation['operationId']}")
        assert callable(module.sync_detailed)


def test_every_json_result_is_a_class_with_fields(document: dict[str, Any], client: ModuleType) -> None:
    models = importlib.import_module(f"{PACKAGE}.models")
    checked = set()
    for operation in operations(document):
        for status, answer in operation["responses"].items():
            schema = answer.get("content", {}).get("application/json", {}).get("schema")
            if status.startswith("2") and schema is not None:
                references = _references(schema)
                assert references, operation["operationId"]
                checked |= references
    assert len(checked) > 50
    for name in checked:
        fields = {field.name for field in attrs.fields(getattr(models, name))} - {"additional_properties"}
        assert len(fields) == len(document["components"]["schemas"][name]["properties"]) > 0, name


def _references(schema: dict[str, Any]) -> set[str]:
    """Return the names of the models of a result: one, several of a union, or that of an array's items."""
    if "$ref" in schema:
        return {schema["$ref"].rpartition("/")[2]}
    parts = [*schema.get("anyOf", []), *schema.get("oneOf", []), *([schema["items"]] if "items" in schema else [])]
    return {name for part in parts for name in _references(part)}


def test_the_client_starts_lists_reads_and_cancels_a_job(lite_api: Api, client: ModuleType) -> None:
    models = importlib.import_module(f"{PACKAGE}.models")
    jobs = {
        name: importlib.import_module(f"{PACKAGE}.api.jobs.{name}")
        for name in ("start_job", "list_jobs", "get_job", "cancel_job")
    }
    with client.AuthenticatedClient(base_url=lite_api.url, token=API_SECRET) as caller:
        body = models.StartRequest.from_dict({"kind": Parcel.kind, "payload": {"number": 7}})
        started = jobs["start_job"].sync(client=caller, body=body)
        assert isinstance(started, models.AcceptedJob)
        listed = jobs["list_jobs"].sync(client=caller, kind=Parcel.kind)
        assert [job.id for job in listed.data] == [started.id]
        read = jobs["get_job"].sync(started.id, client=caller)
        assert read.payload.to_dict() == {"number": 7}
        assert read.created_at == started.created_at
        assert jobs["cancel_job"].sync(started.id, client=caller).state == "cancelled"
        refused = jobs["get_job"].sync("no-such-job", client=caller)
        assert (type(refused).__name__, refused.code) == ("Problem", "job_not_found")
