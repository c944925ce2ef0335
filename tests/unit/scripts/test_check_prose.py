"""The rules of writing: what is counted, and that a ceiling only falls."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

from scripts.check_prose import RULES, lowered, places_of, toml
from scripts.prose import Survey, bindings, look_at_module, page_text, survey, vague_names

BY_NAME = {rule.name: rule for rule in RULES}


def _survey(tmp_path: Path, **files: str) -> Survey:
    """A survey of a tree with these files; `__` in a name is a folder, `_md` the end of a page's name."""
    for name, text in files.items():
        path = tmp_path / (name.replace("__", "/").removesuffix("_md") + (".md" if name.endswith("_md") else ".py"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return survey(tmp_path)


def _texts(result: Survey, rule: str) -> list[str]:
    return [place.text for place in result.places if place.rule == rule]


@pytest.mark.parametrize(
    ("docstring", "number"),
    [
        ("Whether it runs.", 1),
        ("What a page holds.", 1),
        ("Whose turn it is.", 1),
        ("Return what was read.", 0),
        ("Whatsoever is no word of the list.", 0),
        ("Rows of one tenant.", 0),
    ],
)
def test_openings_of_docstrings(docstring: str, number: int) -> None:
    result = Survey()
    look_at_module(result, "app/x.py", f'def f():\n    """{docstring}"""\n')
    assert (result.docstrings, len(_texts(result, "openings"))) == (1, number)


def test_banned_words_are_counted_where_people_read_them(tmp_path: Path) -> None:
    result = _survey(
        tmp_path,
        app__x='''
            """Count the rows anew."""
            WORD = "anew"  # a comment that says anew
            def f():
                raise ValueError("nobody answered anew")  # noqa: B008
            ''',
        docs__page_md="Start `anew` anew.\n\n```sh\necho anew\n```\n\nIt is beside the\npoint of which he tells of.\n",
    )
    assert len(_texts(result, "words-code")) == 2
    assert len(_texts(result, "words-messages")) == 2
    assert [text.split(":")[0] for text in _texts(result, "words-docs")] == ["anew", "beside", "of which", "tells of"]
    assert [place.line for place in result.places if place.rule == "words-docs"] == [1, 7, 8, 8]


def test_a_page_keeps_its_lines_without_its_code() -> None:
    assert page_text("one\n```\nanew\n```\ntwo `anew`") == "one\n\n\n\ntwo "


def test_a_name_counts_once_a_scope_however_it_is_bound() -> None:
    source = """
        def kept(given):
            found = 1
            found = 2
            for one in []:
                pass
            self.wanted = [told for told in found]
            lambda said: said
            with open("x") as shown:
                return given
        def shown():
            kept(found=1)
        """
    names = vague_names(ast.parse(textwrap.dedent(source)))
    assert sorted(name for name, _ in names) == sorted(
        ["kept()", "given", "found", "one", "wanted", "told", "said", "shown()"]
    )


def test_bindings_of_except_match_and_arguments() -> None:
    source = """
        def f(a, /, *b, c=1, **d):
            try:
                pass
            except OSError as e:
                pass
            match a:
                case [g]:
                    pass
        """
    assert {name for name, _ in bindings(ast.parse(textwrap.dedent(source)))} == {"f()", *"abcdeg"}


def test_constants_of_the_old_form(tmp_path: Path) -> None:
    result = _survey(tmp_path, actors__x="MOST_ROWS = 1\n_LONGEST_NAME = 2\nMAX_ROWS = 3\nALMOST_ALL = 4\n")
    assert _texts(result, "constants") == ["MOST_ROWS", "_LONGEST_NAME"]


def test_public_classes_and_files_that_share_a_name(tmp_path: Path) -> None:
    own = "class {0}:\n    class Inner: ...\nclass _{0}: ...\n"
    result = _survey(
        tmp_path,
        app__jobs__a__intake=own.format("Page"),
        app__jobs__b__intake=own.format("Page"),
        app__search__intake=own.format("Other"),
        app__jobs__a__models="",
        app__jobs__b__models="",
        app__jobs__c__intake='"""The old name of a/intake."""\nfrom app.jobs.a.intake import Page\n',
    )
    assert [place.path for place in result.places if place.rule == "classes"] == [
        "app/jobs/a/intake.py",
        "app/jobs/b/intake.py",
    ]
    assert [place.path for place in result.places if place.rule == "files"] == [
        "app/jobs/a/intake.py",
        "app/jobs/b/intake.py",
    ]


def test_rates_are_rounded_up() -> None:
    result = Survey(docstrings=3000)
    look_at_module(result, "app/x.py", '"""How it is."""')
    assert BY_NAME["openings"].value(result) == 0.04


def test_a_ceiling_falls_to_its_target_and_never_rises() -> None:
    values = dict.fromkeys(BY_NAME, 50.0) | {"openings": 0.2, "names": 700}
    ceilings = dict.fromkeys(BY_NAME, 60.0) | {"openings": 3.0, "names": 500}
    assert lowered(ceilings, values) == dict.fromkeys(BY_NAME, 50.0) | {"openings": 1, "names": 500}
    assert "openings = 1\n" in toml(lowered(ceilings, values))


def test_the_worst_files_come_first(tmp_path: Path) -> None:
    result = _survey(tmp_path, app__a="found = 1\n", app__b="found = 1\nsaid = 2\n")
    assert places_of(result, "names", "") == [
        "app/b.py:1: found",
        "app/b.py:2: said",
        "app/a.py:1: found",
        "3 in 2 files",
    ]
    assert places_of(result, "names", "app/a")[-1] == "1 in 1 files"
