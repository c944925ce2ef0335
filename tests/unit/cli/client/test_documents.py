"""Files, folders and addresses become requests that index them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli.client.documents import list_requests
from app.cli.exit_codes import CliExit


def test_a_file_is_sent_with_the_title_of_its_first_heading(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("intro\n\n# The title\n")
    (tmp_path / "b.txt").write_text("plain")
    (tmp_path / "c.html").write_text("<title>Own</title>")
    sent = {Path(name).name: body for name, body in list_requests(str(tmp_path), ["x"])}
    assert sent["a.md"]["title"] == "The title"
    assert sent["b.txt"]["text"] == "plain"
    assert "title" not in sent["c.html"]
    assert all(body["tags"] == ["x"] and body["url"].startswith("file://") for body in sent.values())
    assert list(list_requests("https://example.org/x", [])) == [
        ("https://example.org/x", {"url": "https://example.org/x", "source": "cli"})
    ]


def test_an_unreadable_target_is_refused(tmp_path: Path) -> None:
    for target in ("nowhere", "."):
        path = tmp_path / "empty" if target == "." else tmp_path / target
        if target == ".":
            path.mkdir()
        with pytest.raises(CliExit) as caught:
            list(list_requests(str(path), []))
        assert caught.value.code == 2
        assert str(path) in caught.value.message


def test_text_that_is_not_utf_8_is_uploaded_as_a_file(tmp_path: Path) -> None:
    """The server detects the encoding."""
    path = tmp_path / "latin.txt"
    path.write_bytes("café".encode("latin-1"))
    [(name, body)] = list_requests(str(path), ["a"])
    assert (name, body["file"], body["tags"]) == (str(path), path, ["a"])
