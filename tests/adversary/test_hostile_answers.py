"""Answers and files of a parser that a document has taken over, as the worker reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.documents.ingest.extracted import ExtractedAttachment, ExtractedFile, ExtractedPage, check_answer
from app.documents.ingest.ingest import store_attachment
from tests.support.databases import SettingsEnv

GOOD: dict[str, Any] = {
    "title": "A title",
    "description": None,
    "language": "en",
    "metadata": {"author": "A. N. Other"},
    "pages": [{"number": 1, "start": 0, "end": 10}],
    "attachments": [{"name": "a.txt", "media_type": "text/plain", "path": "/tmp/x/attachment-0"}],
    "ocr": False,
}


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", "../secret", "/etc/", "secret/..", ""])
async def test_an_attachment_outside_the_folder_is_not_stored(path: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_text("s3cret")
    with pytest.raises(InvalidInput) as caught:
        await store_attachment(ExtractedAttachment(name="a.txt", media_type="text/plain", path=path), folder)
    assert caught.value.code == "broken_document"


@pytest.mark.anyio
async def test_an_attachment_that_is_a_link_is_not_stored(tmp_path: Path) -> None:
    (tmp_path / "attachment-0").symlink_to("/etc/passwd")
    attachment = ExtractedAttachment(name="a.txt", media_type="text/plain", path=str(tmp_path / "attachment-0"))
    with pytest.raises(InvalidInput):
        await store_attachment(attachment, tmp_path)


@pytest.mark.anyio
async def test_an_attachment_in_the_folder_is_stored(tmp_path: Path, settings_env: SettingsEnv) -> None:
    settings_env(data_dir=tmp_path / "data")
    (tmp_path / "attachment-0").write_text("words of an attachment")
    attachment = ExtractedAttachment(name="a.txt", media_type="text/plain", path=str(tmp_path / "attachment-0"))
    original = await store_attachment(attachment, tmp_path)
    assert original is not None
    assert original.file_name == "a.txt"


@pytest.mark.parametrize(
    "change",
    [
        {"title": 7},
        {"metadata": []},
        {"pages": [{"number": 10**30, "start": 0, "end": 1}]},
        {"pages": [{"number": 1}]},
        {"pages": "all"},
        {"attachments": [{"name": "a", "media_type": "b", "path": ["/etc/passwd"]}]},
        {"attachments": GOOD["attachments"] * 2_000},
        {"ocr": "no"},
    ],
)
def test_a_broken_answer_ends_the_job_for_good(change: dict[str, Any]) -> None:
    assert check_answer(ExtractedFile, GOOD).model_dump() == GOOD
    answers: list[Any] = [GOOD | change, None, [], "x", {}]
    for answer in answers:
        with pytest.raises(InvalidInput, match="broken answer") as caught:
            check_answer(ExtractedFile, answer)
        assert caught.value.code == "broken_document"


def test_a_broken_answer_of_a_page_ends_the_job_for_good() -> None:
    assert check_answer(ExtractedPage, {"title": "x"}).title == "x"
    answers: list[Any] = [{"title": {"x": 1}}, [], None]
    for answer in answers:
        with pytest.raises(InvalidInput):
            check_answer(ExtractedPage, answer)
