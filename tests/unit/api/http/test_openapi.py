"""The OpenAPI document: errors, operation ids, tags, examples; and no input makes a 500."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error

from app.main import create_app
from tests.fakes.firecrawl import FakeFirecrawl
from tests.support.databases import SettingsEnv
from tests.support.stack import API_SECRET
from tests.unit.api.conftest import Api, served

# Documents that are accepted here stay: no worker runs their jobs, so /api/test-index would wait for 30 s each time.
WAITING = "/api/test-index"
# A stream of all events never ends.
ENDLESS = "/api/events"
# Of each operation and mode; so many of them are also sent without the secret.
EXAMPLES, STRANGERS = 10, 2


@pytest.fixture
def document(lite_api: Api) -> Iterator[dict[str, Any]]:
    yield lite_api.anyone.get("/openapi.json").json()


def test_every_operation_documents_its_errors(document: dict[str, Any]) -> None:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            shown = {
                status: answer["content"].get("application/problem+json")
                for status, answer in operation["responses"].items()
                if int(status) >= 400
            }
            assert {"400", "429", "500", "503"} <= shown.keys(), (method, path)
            assert all(content == problem for content in shown.values()), (method, path)
            guarded = path.startswith(("/api/", "/v2/"))
            signed = path.startswith("/api/webhook/")  # by its sender, not by a key
            assert bool(operation.get("security")) == (guarded and not signed), path
            assert ("401" in shown) == guarded, path
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_operation_ids_are_unique_names_of_methods(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) for name in names)
    assert {
        "start_job", "list_jobs", "get_job", "cancel_job", "retry_job", "follow_job", "list_documents", "search",
        "create_key", "list_tenants", "get_health",
    } <= set(names)  # fmt: skip


def test_every_tag_has_a_description_and_every_operation_a_tag(document: dict[str, Any]) -> None:
    described = {tag["name"]: tag["description"] for tag in document["tags"]}
    used = {tag for path in document["paths"].values() for operation in path.values() for tag in operation["tags"]}
    assert used == described.keys()
    assert all(described.values())


def test_every_body_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
                examples = _body_examples(document, content)
                assert examples, (method, path, media_type)
                schema = {**content["schema"], "components": document["components"]}
                for example in examples:
                    if media_type == "application/json":
                        jsonschema_rs.Draft202012Validator(schema).validate(example)


def _body_examples(document: dict[str, Any], content: dict[str, Any]) -> list[Any]:
    """Return the examples of a body, or those of the models that it may be."""
    schema = content["schema"]
    examples = [content["example"]] if "example" in content else [*schema.get("examples", [])]
    for part in [schema, *schema.get("anyOf", []), *schema.get("oneOf", [])]:
        if "$ref" in part:
            examples += document["components"]["schemas"][part["$ref"].rpartition("/")[2]].get("examples", [])
    return examples


def test_paths_of_the_contract_exist(document: dict[str, Any]) -> None:
    assert {
        "/api/jobs", "/api/jobs/{job_id}", "/api/jobs/{job_id}/cancel", "/api/jobs/{job_id}/retry",
        "/api/jobs/{job_id}/events", "/api/events", "/api/tasks/{job_id}", "/api/documents",
        "/api/documents/{document_id}/progress",
        "/api/webhook/firecrawl", "/api/metrics/crawls/{crawl_id}", "/api/content/{content_id}",
        "/api/metrics/requests", "/api/metrics/operations", "/api/metrics/summary",
        "/api/content/by-url", "/api/content/by-session/{session_id}",
        "/api/v2/scrape", "/v2/scrape", "/v2/crawl/{run_id}",
        "/api/index", "/api/search", "/api/stats", "/", "/health", "/livez", "/readyz", "/metrics",
    } <= document["paths"].keys()  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_no_generated_input_causes_a_server_error(
    settings_env: SettingsEnv, request: pytest.FixtureRequest, redis_url: str
) -> None:
    """Valid and invalid requests to every operation, generated once and sent to an API on either database.

    The first of them are also sent without the secret, on SQLite alone: no database is asked for these.
    """
    cases: list[Any] = []
    with FakeFirecrawl().running() as server, requests.Session() as session:
        for database in ("sqlite_url", "postgres_url"):
            url = request.getfixturevalue(database)
            settings_env(database_url=url, redis_url=redis_url, firecrawl_url=server.url)
            with served(create_app()) as api:
                cases = cases or list(_generate(api))
                for number, case in cases:
                    _send(api, case, session, with_and_without=number < STRANGERS and database == "sqlite_url")


def _generate(api: Api) -> Iterator[tuple[int, Any]]:
    """Yield requests to every operation, each with its number among those of its operation and mode."""
    schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json")
    operations = 0
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]
        if operation.path in (WAITING, ENDLESS):
            continue
        operations += 1
        takes_input = bool(operation.definition.raw.get("parameters") or operation.definition.raw.get("requestBody"))
        for mode in list(schemathesis.GenerationMode)[: 1 + takes_input]:
            yield from enumerate(_examples(operation, mode))
    assert operations >= 16


def _examples(operation: Any, mode: schemathesis.GenerationMode) -> list[Any]:
    cases: list[Any] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def collect(case: Any) -> None:
        cases.append(case)

    collect()
    return cases


def _send(api: Api, case: Any, session: requests.Session, *, with_and_without: bool) -> None:
    secret = {"Authorization": f"Bearer {API_SECRET}"}
    for headers in (secret, {})[: 1 + with_and_without]:
        case.call_and_validate(
            base_url=api.url, headers=headers, checks=[not_a_server_error], timeout=20, session=session
        )


def test_docs_page_shows_every_route_and_loads_no_other_host(lite_api: Api, document: dict[str, Any]) -> None:
    answer = lite_api.anyone.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    for path in document["paths"]:
        assert f"<code>{path}</code>" in answer.text
    assert f"'http://127.0.0.1:{lite_api.port}/api/jobs'" in html.unescape(answer.text)
    # Examples are escaped text in <pre>; whatever a browser would load stands outside of it.
    loaded = re.sub(r"<pre>[^<]*</pre>", "", answer.text)
    assert not re.findall(r"https?://", loaded)
