"""The catalogues behind the reference pages, and the small parts that make the pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.core.metrics import MEASURED_BY
from scripts import code_scan, contract
from scripts.reference_pages import catalogue, error_statuses, table

ROOT = Path(__file__).resolve().parents[3]


def test_every_error_code_has_a_meaning_and_none_is_left_over() -> None:
    used = {use.code for use in code_scan.error_codes(ROOT)}
    known = set(catalogue("error_codes")["codes"])
    computed = [re.compile(code.replace("*", r"\w+")) for code in used if "*" in code]
    assert {code for code in used - known if "*" not in code} == set()
    assert {code for code in known - used if not any(form.fullmatch(code) for form in computed)} == set()
    assert set(catalogue("error_codes")["status"]) <= used


def test_statuses_come_from_the_table_of_the_api() -> None:
    statuses = error_statuses()
    expected = {"job_not_found": {"404"}, "not_ready": {"503"}, "unauthenticated": {"401"}, "scrape_timeout": {"408"}}
    assert {code: statuses[code] for code in expected} == expected
    assert statuses["stale"] == set(), "no request is answered with it"


def test_every_log_event_has_a_meaning_and_none_is_left_over() -> None:
    assert {call.event for call in code_scan.log_calls(ROOT)} == set(catalogue("log_events"))


def test_every_metric_names_the_processes_that_measure_it() -> None:
    facts, texts = contract.metrics()
    processes = MEASURED_BY
    assert set(processes) == set(facts)
    assert {name for names in processes.values() for name in names} == {"api", "worker", "scheduler", "relay"}
    assert all(texts.values())


def test_a_log_call_is_found_by_its_event(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "x.py").write_text('log.info("started" if a else "stopped", n=1)\nother.info("no")\n')
    calls = [(call.event, call.level, call.module) for call in code_scan.log_calls(tmp_path)]
    assert calls == [("started", "info", "app.x"), ("stopped", "info", "app.x")]


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('raise NotFound("x", code="a_code")', {("a_code", "NotFound", None)}),
        ('CODE = "a_code"\nraise NotFound("x", code=CODE)', {("a_code", "NotFound", None)}),
        ('raise NotFound("x", code=f"{what}_not_found")', {("*_not_found", "NotFound", None)}),
        ('problem(scope, 503, "x", code="not_ready")', {("not_ready", "problem", 503)}),
        ('class Gone(NotFound):\n    code = "gone"', {("gone", "Gone", None)}),
        ("class Slow(LimitReached):\n    def f(self): super().__init__(1, code='slow')", {("slow", "Slow", None)}),
        ('values = {"error_code": "expired"}', {("expired", "", None)}),
        ("""sql = f"SET error_code = CASE WHEN {dead} THEN 'poison' END" """, {("poison", "", None)}),
        ('code = "first" if state else "second"', set()),
        ('code = error.code if known else "unexpected"', {("unexpected", "", None)}),
    ],
)
def test_error_codes_are_found_where_they_are_given(
    tmp_path: Path, source: str, codes: set[tuple[str, str, int | None]]
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "x.py").write_text(source)
    assert {(use.code, use.raised_as, use.status) for use in code_scan.error_codes(tmp_path)} == codes


def test_a_bar_in_a_cell_is_escaped() -> None:
    assert table(("a", "b"), [("x|y", ""), ("two\nlines", 3)]) == (
        "| a | b |\n|---|---|\n| x\\|y |  |\n| two lines | 3 |\n"
    )
