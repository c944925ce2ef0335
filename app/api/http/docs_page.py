"""The API on one HTML page, rendered from the OpenAPI document: no script, nothing from another host."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2rem; text-transform: capitalize }
details { border: 1px solid #8884; border-radius: .4rem; margin: .4rem 0; padding: .4rem .8rem }
summary { cursor: pointer }
summary b { display: inline-block; min-width: 4.5rem }
code, pre { font: 14px/1.45 ui-monospace, monospace }
pre { overflow-x: auto; background: #8881; padding: .6rem; border-radius: .4rem }
td { padding: 0 1rem .2rem 0; vertical-align: top }
"""


@router.get("/docs")
async def show_docs(request: Request) -> HTMLResponse:
    return HTMLResponse(page(request.app.openapi(), str(request.base_url).rstrip("/")))


def page(document: dict[str, Any], server: str) -> str:
    """Return the page; its examples call `server`."""
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            section = _operation(document, server, method.upper(), path, operation)
            groups.setdefault(operation.get("tags", ["other"])[0], []).append(section)
    info = document["info"]
    body = "".join(f"<h2>{escape(name)}</h2>{''.join(sections)}" for name, sections in groups.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info.get('description', ''))}</p>"
        f'<p>For programs: <a href="/openapi.json">openapi.json</a>. Routes under /api take '
        f"<code>Authorization: Bearer &lt;secret&gt;</code>; errors are <code>application/problem+json</code>.</p>"
        f"{body}"
    )


def _operation(document: dict[str, Any], server: str, method: str, path: str, operation: dict[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    parts = [f"<p>{escape(operation.get('description', ''))}</p>", _parameters(operation)]
    if body is not None:
        shape = json.dumps(_resolved(document, body), indent=2)
        parts.append(f"<p>Body:</p><pre>{escape(shape)}</pre>")
    parts.append(f"<pre>{escape(_curl(server, method, path, operation, body is not None))}</pre>")
    parts.append(_responses(operation))
    summary = f"<b>{method}</b> <code>{escape(path)}</code> {escape(operation.get('summary', ''))}"
    return f"<details><summary>{summary}</summary>{''.join(parts)}</details>"


def _parameters(operation: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{escape(parameter['name'])}</code><td>{escape(parameter['in'])}"
        f"<td>{escape(parameter.get('description', ''))}"
        for parameter in operation.get("parameters", [])
    ]
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _curl(server: str, method: str, path: str, operation: dict[str, Any], has_body: bool) -> str:
    words = ["curl"] + ([f"-X {method}"] if method != "GET" else [])
    if operation.get("security"):
        words.append('-H "Authorization: Bearer $MILLRACE_API_SECRET"')
    if has_body:
        words.append("--json @body.json")
    return " ".join([*words, f"'{server}{path}'"])


def _responses(operation: dict[str, Any]) -> str:
    rows = [
        f"<tr><td>{escape(status)}<td>{escape(answer.get('description', ''))}"
        for status, answer in sorted(operation["responses"].items())
    ]
    return f"<table>{''.join(rows)}</table>"


def _resolved(document: dict[str, Any], schema: Any) -> Any:
    """Return the schema with its references resolved; ours have no loops."""
    if isinstance(schema, list):
        return [_resolved(document, item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _resolved(document, document["components"]["schemas"][name])
    return {key: _resolved(document, value) for key, value in schema.items()}
