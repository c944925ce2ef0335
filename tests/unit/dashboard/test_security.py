"""Who may see and do what, and what a page of another site, a stranger's text or an old cookie can do: nothing."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import timedelta
from html.parser import HTMLParser

import httpx
import pytest
from fastapi.routing import APIRoute
from markupsafe import escape
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import database
from app.dashboard.routes import ROUTERS
from app.dashboard.security import CSP, next_page
from app.jobs.models import JobRow, ScheduleRow
from app.tenants import sessions
from tests.support.databases import SettingsEnv
from tests.support.stack import API_SECRET
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api
from tests.unit.dashboard.conftest import Furnishing, make_key, sign_in, visiting

Client = Callable[..., httpx.Client]
HOSTILE = [
    "<script>alert(1)</script> {{ 7*7 }} <!-- ]]> </title><b>",
    '<img src=x onerror=alert(1)> "><svg onload=alert(1)> ${7*7}',
    "'><b id=own> </textarea><b> <base href=//evil> \u202e",
    "<a href='javascript:alert(1)'>x</a> &lt;script&gt; {% raw %}",
    "javascript:alert(1)",
    "a" * 200,
]


class Elements(HTMLParser):
    """Collects what a page could run: scripts, styles, handlers, and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.problems: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "script":
            self.scripts.append(values)
        if tag in ("style", "iframe", "object", "embed", "base"):
            self.problems.append(f"<{tag}>")
        for name, value in attrs:
            address = (value or "").strip().lower()
            is_odd = name in ("href", "src", "action") and ":" in address[:12]
            if name.startswith("on") or name == "style" or (is_odd and not address.startswith("http")):
                self.problems.append(f"<{tag} {name}={value}>")


def test_every_answer_has_the_policy_and_no_page_runs_anything_inline(
    visitor: httpx.Client, furnishing: Furnishing
) -> None:
    for path in [*furnishing.pages(), "/ui/sign-in"]:
        answer = visitor.get(path)
        assert answer.headers["content-security-policy"] == CSP, path
        assert answer.headers["cache-control"] == "no-store", path
        assert answer.headers["x-content-type-options"] == "nosniff", path
        if answer.status_code != 303:
            elements = Elements(answer.text)
            assert elements.problems == [], path
            assert all(script["src"] for script in elements.scripts), path


@pytest.mark.parametrize("text", HOSTILE)
def test_what_strangers_wrote_is_text_on_every_page(lite_api: Api, visitor: httpx.Client, text: str) -> None:
    furnishing = Furnishing(lite_api, text)
    is_shown = 0
    for path in furnishing.pages():
        page = visitor.get(path).text
        elements = Elements(page)
        assert elements.problems == [], path
        assert len(elements.scripts) == 1, path
        if "<" in text:
            assert text not in page, path
        is_shown += str(escape(text[:20])) in page
    assert is_shown >= 3


def test_without_a_session_every_page_leads_to_the_sign_in(lite_api: Api, furnishing: Furnishing) -> None:
    with visiting(lite_api) as client:
        for path in furnishing.pages()[:-1]:
            answer = client.get(path)
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/ui/sign-in"), path
        assert client.post(f"/ui/jobs/{furnishing.job_id}/cancel").headers["location"] == "/ui/sign-in"


def test_the_key_of_the_api_opens_no_page_and_the_cookie_no_api(lite_api: Api, visitor: httpx.Client) -> None:
    with visiting(lite_api) as client:
        client.headers["Authorization"] = f"Bearer {API_SECRET}"
        assert client.get("/ui/jobs").status_code == 303
    assert visitor.get("/api/jobs").status_code == 401
    assert all(cookie.path == "/ui" for cookie in visitor.cookies.jar)


def test_the_cookie_is_for_the_server_alone(lite_api: Api) -> None:
    with visiting(lite_api) as client:
        cookie = sign_in(client).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/ui" in cookie


@pytest.mark.parametrize("wrong", ["", "x", "mr_0123456789abcdef_" + "A" * 43, API_SECRET + "x", "\u20ac"])
def test_a_wrong_key_is_refused_and_on_record(lite_api: Api, wrong: str) -> None:
    with visiting(lite_api) as client:
        answer = sign_in(client, wrong)
        assert answer.status_code == 401
        assert "not a valid key" in answer.text
        assert "set-cookie" not in answer.headers


def test_guessing_ends_after_ten_tries_a_minute(lite_api: Api) -> None:
    with visiting(lite_api) as client:
        answers = [sign_in(client, "wrong").status_code for _ in range(25)]  # a minute may end in between
        assert answers[:9] == [401] * 9
        assert answers.count(429) >= 5


def test_a_key_that_may_not_read_gets_no_session(lite_api: Api) -> None:
    with visiting(lite_api) as client:
        answer = sign_in(client, make_key(lite_api, "kind:tests.dashboard.parcel")["key"])
        assert answer.status_code == 403
        assert "needs a key with the scope" in answer.text


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_form_of_another_site_changes_nothing(
    visitor: httpx.Client, furnishing: Furnishing, headers: dict[str, str]
) -> None:
    del visitor.headers["sec-fetch-site"]
    answer = visitor.post(f"/ui/jobs/{furnishing.job_id}/cancel", headers=headers)
    assert answer.status_code == 403
    row = database().read(lambda session: session.get(JobRow, furnishing.job_id))
    assert row is not None
    assert row.state == "queued"


def test_a_form_without_fetch_metadata_is_known_by_its_origin(
    lite_api: Api, visitor: httpx.Client, furnishing: Furnishing
) -> None:
    del visitor.headers["sec-fetch-site"]
    answer = visitor.post(f"/ui/jobs/{furnishing.job_id}/cancel", headers={"Origin": lite_api.url})
    assert answer.status_code == 303


def test_a_session_ends_with_its_key(lite_api: Api) -> None:
    made = make_key(lite_api, "read")
    with visiting(lite_api) as client:
        sign_in(client, made["key"])
        assert client.get("/ui/jobs").status_code == 200
        assert lite_api.client.delete(f"/api/keys/{made['id']}").status_code in (200, 204)
        wait_until(lambda: client.get("/ui/jobs").status_code == 303, timeout_s=6, what="the session to end")


def test_a_session_ends_at_sign_out_and_its_cookie_opens_nothing_more(visitor: httpx.Client) -> None:
    cookies = dict(visitor.cookies)
    assert visitor.post("/ui/sign-out").status_code == 303
    visitor.cookies.update(cookies)
    assert visitor.get("/ui/jobs").status_code == 303


def test_a_session_ends_when_the_secret_changes(visitor: httpx.Client, settings_env: SettingsEnv) -> None:
    assert visitor.get("/ui/me").status_code == 200
    settings_env(api_secret="another-secret-5b1e0c7d92af4486b3")
    assert visitor.get("/ui/me").status_code == 303


@pytest.mark.parametrize("passed", [sessions.MAX_IDLE, sessions.MAX_AGE])
def test_a_session_ends_by_time(visitor: httpx.Client, passed: timedelta) -> None:
    assert visitor.get("/ui/me").status_code == 200
    before = clock.shifted()
    clock.shift(before + passed + timedelta(seconds=1))
    try:
        assert visitor.get("/ui/me").status_code == 303
    finally:
        clock.shift(before)


def test_a_session_of_another_key_cannot_be_ended(visitor: httpx.Client, key_client: Client) -> None:
    session_id = re.search(r"/ui/me/sessions/([0-9a-f]{16})/end", visitor.get("/ui/me").text)
    assert session_id
    other = key_client("read", "write")
    assert other.post(f"/ui/me/sessions/{session_id[1]}/end").status_code == 404
    assert visitor.get("/ui/me").status_code == 200


@pytest.mark.parametrize(
    ("target", "page"),
    [
        ("/ui/jobs?state=failed", "/ui/jobs?state=failed"),
        ("//evil.example", "/ui/"),
        ("/ui/..//evil.example", "/ui/"),
        ("/ui/\\evil.example", "/ui/"),
        ("https://evil.example/ui/", "/ui/"),
        ("/api/jobs", "/ui/"),
        ("/ui/\r\nSet-Cookie: x=1", "/ui/"),
        ("", "/ui/"),
        (None, "/ui/"),
    ],
)
def test_the_sign_in_leads_to_a_page_of_ours_alone(target: str | None, page: str) -> None:
    assert next_page(target) == page


def test_without_a_secret_only_this_machine_is_answered(
    sqlite_url: str, redis_url: str, settings_env: SettingsEnv, lite_api: Api
) -> None:
    settings_env(database_url=sqlite_url, redis_url=redis_url, api_secret="")
    with visiting(lite_api) as client:
        assert client.get("/ui/jobs").status_code == 200
        forged = client.get("/ui/jobs", headers={"Host": "evil.example"})
        assert forged.status_code == 403
        assert "localhost only" in forged.text


# What each identity gets: see, act, or the status of a refusal. A route without a line here fails the test.
READ, WRITE, ADMIN, OPERATOR = (frozenset(("read", "write", "admin", "operator")[place:]) for place in range(4))
ALLOWED: dict[tuple[str, str], frozenset[str]] = {
    ("GET", "/ui/"): READ,
    ("GET", "/ui/jobs"): READ,
    ("GET", "/ui/jobs/{job_id}"): READ,
    ("POST", "/ui/jobs/{job_id}/{act}"): WRITE,
    ("GET", "/ui/go"): READ,
    ("GET", "/ui/live"): READ,
    ("GET", "/ui/failures"): READ,
    ("GET", "/ui/queues"): OPERATOR,
    ("POST", "/ui/queues/{queue}/pause"): OPERATOR,
    ("POST", "/ui/queues/{queue}/resume"): OPERATOR,
    ("GET", "/ui/workers"): OPERATOR,
    ("POST", "/ui/workers/{worker_id}/{order}"): OPERATOR,
    ("GET", "/ui/schedules"): READ,
    ("GET", "/ui/schedules/{schedule_id}"): READ,
    ("POST", "/ui/schedules/{schedule_id}/{act}"): WRITE,
    ("GET", "/ui/search"): READ,
    ("GET", "/ui/documents"): READ,
    ("GET", "/ui/documents/{document_id}"): READ,
    ("GET", "/ui/documents/{document_id}/similar"): READ,
    ("GET", "/ui/documents/{document_id}/diff"): READ,
    ("POST", "/ui/documents/{document_id}/delete"): WRITE,
    ("GET", "/ui/collections"): READ,
    ("GET", "/ui/audit"): ADMIN,
    ("GET", "/ui/me"): READ,
    ("POST", "/ui/me/settings"): READ,
    ("POST", "/ui/me/sessions/{session_id}/end"): READ,
    ("POST", "/ui/sign-out"): READ,
}
OPEN_TO_ALL = {
    ("GET", "/ui/sign-in"),
    ("POST", "/ui/sign-in"),
    ("GET", "/ui/static/{digest}/{name}"),
    ("GET", "/ui/{path:path}"),
}


def routes() -> set[tuple[str, str]]:
    shown = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    return {(method, route.path) for route in shown for method in route.methods or ()}


def test_every_route_has_a_line_in_the_table() -> None:
    assert routes() == ALLOWED.keys() | OPEN_TO_ALL


@pytest.mark.parametrize("role", ["read", "write", "admin", "operator"])
def test_each_role_reaches_what_the_table_says(
    lite_api: Api, furnishing: Furnishing, key_client: Client, role: str
) -> None:
    granted = {"read": ("read",), "write": ("read", "write"), "admin": ("admin",), "operator": ("operator",)}[role]
    client = key_client(*granted)
    values = {
        "{job_id}": furnishing.job_id, "{schedule_id}": furnishing.schedule_id, "{document_id}": furnishing.document_id,
        "{queue}": "bulk", "{worker_id}": furnishing.worker_id, "{act}": "pause", "{order}": "resume",
        "{session_id}": "0" * 16,
    }  # fmt: skip
    last = [("POST", "/ui/sign-out"), ("POST", "/ui/documents/{document_id}/delete")]
    for method, path in [*sorted(ALLOWED.keys() - set(last)), *reversed(last)]:
        address = path
        for name, value in values.items():
            address = address.replace(name, "cancel" if (name, "jobs" in path) == ("{act}", True) else value)
        answer = client.request(method, address)
        if role in ALLOWED[method, path]:
            assert answer.status_code in (200, 303, 404, 409, 422), (method, address, answer.text)
        else:
            assert answer.status_code == 403, (method, address)


def test_links_that_would_be_refused_are_not_drawn(key_client: Client, furnishing: Furnishing) -> None:
    for client in (key_client("read"), key_client("read", "write"), key_client("admin")):
        for path in ("/ui/", "/ui/jobs", f"/ui/jobs/{furnishing.failed_id}", "/ui/schedules", "/ui/documents"):
            page = client.get(path).text
            for link in set(re.findall(r'(?:href)="(/ui/[^"#]*)"', page)):
                assert client.get(html.unescape(link)).status_code in (200, 303), (path, link)
    reader = key_client("read").get(f"/ui/jobs/{furnishing.failed_id}").text
    assert "/retry" not in reader


def test_another_tenants_things_are_not_there(key_client: Client, furnishing: Furnishing) -> None:
    other = key_client("admin", tenant="rival")
    for path in furnishing.pages():
        answer = other.get(path)
        if "?q=" not in path:  # that page repeats its question
            assert "zugspitze" not in answer.text, path
        assert furnishing.document_id not in re.findall(r"/ui/documents/([0-9]+)", answer.text), path
    for path in (
        f"/ui/jobs/{furnishing.job_id}", f"/ui/documents/{furnishing.document_id}",
        f"/ui/schedules/{furnishing.schedule_id}",
    ):  # fmt: skip
        assert other.get(path).status_code == 404, path
    assert other.post(f"/ui/jobs/{furnishing.job_id}/cancel").status_code == 404


def test_jobs_and_schedules_of_operators_are_changed_by_operators_alone(
    key_client: Client, furnishing: Furnishing
) -> None:
    def reserve(session: Session) -> None:
        for row in (session.get(JobRow, furnishing.job_id), session.get(ScheduleRow, int(furnishing.schedule_id))):
            assert row is not None
            row.kind = "search.drop_generation"

    database().transaction(reserve)
    paths = (f"/ui/jobs/{furnishing.job_id}/cancel", f"/ui/schedules/{furnishing.schedule_id}/run")
    for client in (key_client("read", "write"), key_client("admin")):
        assert [client.post(path).status_code for path in paths] == [403, 403]
    operator = key_client("operator")
    assert operator.post(paths[0]).status_code == 303
