"""`millrace keys` and `millrace tenants`: keys and quotas of a tenant."""

from __future__ import annotations

import pytest

from tests.unit.api.conftest import Api
from tests.unit.cli.terminals import Terminal

pytestmark = pytest.mark.timeout(180)


@pytest.mark.slow
def test_a_tenant_and_its_key_from_beginning_to_end(lite_api: Api) -> None:
    terminal = Terminal(lite_api.url)
    made = terminal("tenants", "create", "acme", "--title", "Acme", "--max-documents", "7", "--json")
    assert made.json["quotas"]["max_documents"] == 7, made.err
    changed = terminal("tenants", "update", "acme", "--max-documents", "none", "--max-open-jobs", "3")
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
def test_wrong_arguments_have_their_exit_codes(terminal: Terminal) -> None:
    assert terminal("keys", "revoke", "0000000000000000").code == 4
    assert terminal("keys", "create", "x", "--scope", "root").code == 2
    assert terminal("keys", "create", "x", "--rate", "often").code == 2
    assert terminal("tenants", "update", "default", "--max-bytes", "many").code == 2
