"""Validates answers of the API against its OpenAPI document, with no key beyond the documented ones."""

from __future__ import annotations

import copy
import re
from functools import lru_cache
from typing import Any

import httpx
import jsonschema_rs

from app.main import create_app

_RFC_3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


class Contract:
    """The operations of a document, and a validator for each of their answers."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = _closed(copy.deepcopy(document))
        self._operations = sorted(
            ((_pattern(path), operations) for path, operations in self.document["paths"].items()),
            key=lambda entry: entry[0][0],
        )
        self._validators: dict[str, jsonschema_rs.Draft202012Validator] = {}

    def check(self, response: httpx.Response) -> None:
        """Raise AssertionError for an undocumented status, an undocumented type, and a body of another shape.

        Answers of paths and methods that the document does not have are not checked. Under /v2 the answers are
        Firecrawl's, and tests send odd ones on purpose.
        """
        request = response.request
        if request.url.path.startswith("/v2/"):
            return
        operation = self._operation(request.method.lower(), request.url.path)
        if operation is None:
            return
        name = f"{request.method} {request.url.path} {response.status_code}"
        documented = operation["responses"].get(str(response.status_code))
        assert documented is not None, f"{name}: the status is not documented"
        media_type = response.headers.get("content-type", "").partition(";")[0]
        if not media_type or response.status_code == 204:
            return
        content = documented.get("content", {})
        assert media_type in content or "*/*" in content, f"{name}: {media_type} is not documented, only {[*content]}"
        if media_type == "application/json" or media_type.endswith("+json"):
            response.read()
            self._check_body(name, content.get(media_type) or content["*/*"], response.json())

    def _check_body(self, name: str, content: dict[str, Any], body: Any) -> None:
        schema = content.get("schema")
        assert schema, f"{name}: the answer has no schema"
        key = repr(schema)
        if key not in self._validators:
            self._validators[key] = jsonschema_rs.Draft202012Validator(
                {**schema, "components": self.document["components"]},
                validate_formats=True,
                formats={"date-time": lambda text: bool(_RFC_3339_UTC.fullmatch(text))},
            )
        faults = [
            f"{'.'.join(map(str, error.instance_path))}: {error.message}"
            for error in self._validators[key].iter_errors(body)
        ]
        assert not faults, f"{name}: {'; '.join(faults[:5])}"

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        for (_, pattern), operations in self._operations:
            if pattern.fullmatch(path):
                operation: dict[str, Any] | None = operations.get(method)
                return operation
        return None


def _pattern(path: str) -> tuple[tuple[int, str], re.Pattern[str]]:
    """Return a sort key, fixed paths first, and a pattern; only `{path}` matches slashes."""
    parts = re.split(r"\{(\w+)\}", path)
    pattern = "".join(
        re.escape(part) if i % 2 == 0 else ("(.*)" if part == "path" else "([^/]+)") for i, part in enumerate(parts)
    )
    return (len(parts) + 1000 * ("{path}" in path), path), re.compile(pattern, re.DOTALL)


def _closed(schema: Any) -> Any:
    """Forbid every key that an object's schema does not name."""
    if isinstance(schema, list):
        for item in schema:
            _closed(item)
    elif isinstance(schema, dict):
        for item in schema.values():
            _closed(item)
        if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
    return schema


@lru_cache(maxsize=1)
def _contract() -> Contract:
    return Contract(create_app().openapi())


def check_answer(response: httpx.Response) -> None:
    """A response hook of the clients in tests: every answer fits the document of the application."""
    _contract().check(response)
