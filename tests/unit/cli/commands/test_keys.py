"""Keys and tenants from a terminal."""

from __future__ import annotations

import os

import pytest

from tests.support.command import Ran, millrace
from tests.support.stack import API_SECRET
from tests.unit.api.conftest import Api, lite_api

__all__ = ["lite_api"]

pytestmark = pytest.mark.timeout(180)


class Terminal:
    """Commands against an api in this process."""

    def __init__(self, api: Api) -> None:
        self.env = {**os.environ, "MILLRACE_URL": api.url, "MILLRACE_API_SECRET": API_SECRET}

    def __call__(self, *words: str) -> Ran:
        return millrace(*words, env=self.env)


@pytest.mark.slow
def test_a_tenant_and_its_key_from_beginning_to_end(lite_api: Api) -> None:
    terminal = Terminal(lite_api)
    made = terminal("tenants", "create", "acme", "--title", "Acme", "--max-documents", "7", "--json")
    assert made.json["quotas"]["max_documents"] == 7, made.err
    changed = terminal("tenants", "change", "acme", "--max-documents", "none", "--max-open-jobs", "3")
    assert (changed.code, "open jobs: 3" in changed.out, "documents: no limit" in changed.out) == (0, True, True)

    words = ("--tenant", "acme", "--scope", "read", "--rate", "*=9/hour", "--json")
    key = terminal("keys", "create", "shop", *words).json
    assert (key["scopes"], key["rate_limits"]) == (["read"], {"*": "9/hour"})
    headers = {"Authorization": key["key"]}
    assert lite_api.anyone.get("/api/jobs", headers=headers).status_code == 200
    rotated = terminal("keys", "rotate", key["id"])
    token = rotated.out.splitlines()[-1]
    assert lite_api.anyone.get("/api/jobs", headers=headers).status_code == 401
    assert lite_api.anyone.get("/api/jobs", headers={"Authorization": token}).status_code == 200
    listed = terminal("keys", "list", "--tenant", "acme")
    assert key["id"] in listed.out and token not in listed.out
    assert terminal("keys", "revoke", key["id"], "--json").json["state"] == "revoked"
    assert lite_api.anyone.get("/api/jobs", headers={"Authorization": token}).status_code == 401


@pytest.mark.slow
def test_what_is_wrong_ends_with_its_exit_code(lite_api: Api) -> None:
    terminal = Terminal(lite_api)
    assert terminal("keys", "revoke", "0000000000000000").code == 4
    assert terminal("keys", "create", "x", "--scope", "root").code == 2
    assert terminal("keys", "create", "x", "--rate", "often").code == 2
    assert terminal("tenants", "change", "default", "--max-bytes", "many").code == 2
