"""The OpenAPI document: FastAPI's, with our error shape, the scopes of keys, and operation ids for clients."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from app.api.http.auth import needed_scope

PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "An error (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id", "errors"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"description": "A sentence; with 422 on routes of the old service, the list of faults."},
        "code": {"type": "string", "description": "A stable word for programs."},
        "request_id": {"type": ["string", "null"]},
        "errors": {"type": "array", "items": {"type": "object"}},
        "missing": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The services that are not usable; only from `/readyz`.",
        },
        "error": {"type": "string", "description": "The text of the old service; only with 429 and 500."},
    },
}
ALWAYS = {"400": "Bad request", "429": "Too many requests", "500": "A bug", "503": "SQL or Redis is not usable now"}
GUARDED = {"401": "Missing or wrong credentials", "403": "The key lacks the scope"}
WITH_INPUT = {"404": "Not found", "409": "Conflict", "413": "Body too large", "422": "Invalid input"}
REFERENCE = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


TAGS = {
    "jobs": "Start jobs, list them, read, cancel and retry one; explanations, log lines and dead letters.",
    "events": "Progress and state changes as Server-Sent Events: of one job, or of all jobs of the tenant.",
    "schedules": "Jobs at fixed times: cron or intervals, with rules for missed and overlapping runs.",
    "queues": "Depth and age of the queues; pauses and limits of queues, kinds and tenants. For operators.",
    "workers": "The worker processes, and orders to pause, resume or drain one. For operators.",
    "documents": "Upload, list, change and delete documents; their versions, chunks and changes.",
    "collections": "Named groups of documents, which keys can be limited to.",
    "search": "Search documents; state and maintenance of the search index.",
    "intake": "Pages from outside: crawls, scrapes, watches, and webhooks that deliver pages.",
    "firecrawl": "The Firecrawl API, passed on to a Firecrawl server.",
    "webhooks": "The secret that verifies webhooks sent by Millrace.",
    "metrics": "Durations of requests and of steps of work.",
    "keys": "API keys, and the audit log of administrators' actions.",
    "tenants": "Tenants and their quotas. For operators.",
    "health": "Liveness, readiness and Prometheus metrics of this process; open without a key.",
}


def operation_id(route: APIRoute) -> str:
    """Return the name of the route's function: generated clients name their methods after it."""
    return route.name


def document(app: FastAPI) -> dict[str, Any]:
    """Return the document, built once."""
    if app.openapi_schema is None:
        tags = [{"name": name, "description": description} for name, description in TAGS.items()]
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=tags
        )
        for path in schema["paths"].values():
            for method, operation in path.items():
                _describe_scope(method.upper(), operation)
                _describe_errors(operation)
                _keep_models_only(operation)
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        schemas["Problem"] = PROBLEM
        app.openapi_schema = schema
    return app.openapi_schema


def _describe_scope(method: str, operation: dict[str, Any]) -> None:
    """Put the scope that a key needs into the security requirement and the description."""
    for requirement in operation.get("security", []):
        for scheme, required in requirement.items():
            scope, others = needed_scope(method, required)
            requirement[scheme] = [scope] if scope else []
            words = f"Needs the scope `{scope}`" if scope else "Any valid key is enough"
            words += "".join(f", or `{word}:NAME` for some {word}s" for word in others) + "."
            operation["description"] = "\n\n".join(filter(None, [operation.get("description"), words]))


def _describe_errors(operation: dict[str, Any]) -> None:
    possible = dict(ALWAYS)
    if operation.get("security"):
        possible |= GUARDED
    if operation.get("parameters") or operation.get("requestBody"):
        possible |= WITH_INPUT
    responses = operation["responses"]
    if responses.get("422", {}).get("description") == "Validation Error":
        del responses["422"]
    possible |= {status: response["description"] for status, response in responses.items() if status[0] in "45"}
    for status, description in possible.items():
        responses.setdefault(status, {"description": description}).setdefault("content", REFERENCE)


def _keep_models_only(operation: dict[str, Any]) -> None:
    """Drop what FastAPI derives from `dict[str, Any]`, the return type of routes, next to a documented model."""
    for response in operation["responses"].values():
        for content in response.get("content", {}).values():
            if "schema" in content:
                content["schema"] = _keep_reference(content["schema"])


def _keep_reference(schema: dict[str, Any]) -> dict[str, Any]:
    reference = next((key for key in ("$ref", "anyOf", "oneOf") if key in schema), None)
    if reference is not None:
        return {reference: schema[reference]}
    if isinstance(schema.get("items"), dict):
        return schema | {"items": _keep_reference(schema["items"])}
    return schema
