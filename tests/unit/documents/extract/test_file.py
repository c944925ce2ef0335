"""Files of every kind to Markdown: their text is found, and their faults are reported."""

from __future__ import annotations

from pathlib import Path

import pypdf
import pytest

from app.core.errors import InvalidInput
from app.documents.extract import ocr
from app.documents.extract.file import extract_file
from app.documents.files import sniff
from tests.support import made_documents, make_pdf
from tests.support.extraction import code, read
from tests.support.made_documents import Made
from tests.support.services import missing


@pytest.mark.parametrize("ending", made_documents.kinds())
def test_a_sentence_is_found_in_each_kind(tmp_path: Path, ending: str) -> None:
    made = made_documents.make(tmp_path, ending, "penstock")
    extracted = read(made.path)
    assert made.sentence is not None and made.sentence in " ".join(extracted["text"].split())
    for page in extracted["pages"]:
        assert 0 <= page["start"] <= page["end"] <= len(extracted["text"])
    assert extracted["pages"][-1]["end"] == len(extracted["text"])


def test_headings_tables_titles_and_pages_are_kept(tmp_path: Path) -> None:
    word = read(made_documents.make(tmp_path, "docx", "a").path)
    assert word["title"] == "A report"
    assert "# Findings" in word["text"] and "| Part | Price |\n| --- | --- |\n| Sluice | 12 |" in word["text"]
    slides = read(made_documents.make(tmp_path, "pptx", "b").path)
    assert [page["number"] for page in slides["pages"]] == [1, 2]
    second = slides["pages"][1]
    assert slides["text"][second["start"] : second["end"]].startswith("# Second")
    sheets = read(made_documents.make(tmp_path, "xlsx", "c").path)
    assert "# Prices" in sheets["text"] and "| Wheel | 400.5 | big |" in sheets["text"]
    assert "| Sluice | 12 |" in sheets["text"]
    book = read(made_documents.make(tmp_path, "epub", "d").path)
    assert (book["title"], book["language"], len(book["pages"])) == ("A book", "en", 2)
    plan = read(made_documents.make(tmp_path, "pdf", "e").path)
    assert plan["title"] == "A plan" and "# Findings" in plan["text"]
    assert "## Findings" in read(made_documents.make(tmp_path, "odt", "f").path)["text"]
    values = read(made_documents.make(tmp_path, "csv", "g").path)
    assert values["text"].startswith("| Part | Note |\n| --- | --- |\n| Sluice |")
    assert read(made_documents.make(tmp_path, "txt", "h").path)["text"].startswith("Grüße.")


def test_a_long_table_says_its_columns_again(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("Part,Price\n" + "".join(f"P{n},{n}\n" for n in range(100)))
    assert read(path)["text"].count("| Part | Price |") == 3


def test_an_e_mail_gives_its_attachments(tmp_path: Path) -> None:
    path = tmp_path / "letter.eml"
    made_documents.as_eml(path, "See the notes.", attachment=b"The notes.")
    extracted = read(path)
    assert extracted["title"] == "The gate" and extracted["metadata"]["from"] == "miller@example.org"
    [attachment] = extracted["attachments"]
    assert attachment["name"] == "notes.txt" and Path(attachment["path"]).read_bytes() == b"The notes."


def test_pages_of_a_pdf_rotated_in_columns_and_in_thousands(tmp_path: Path) -> None:
    rotated = make_pdf.write(tmp_path / "r.pdf", [make_pdf.of_lines(["Turned by a quarter."])], rotate=90)
    assert "Turned by a quarter." in read(rotated)["text"]
    rows = [
        line
        for n in range(12)
        for line in (make_pdf.Line(f"left {n}.", 60, 700 - 20 * n), make_pdf.Line(f"right {n}.", 330, 700 - 20 * n))
    ]
    text = read(make_pdf.write(tmp_path / "c.pdf", [rows]))["text"]
    assert text.index("left 11.") < text.index("right 0.")
    many = make_pdf.write(tmp_path / "m.pdf", [make_pdf.of_lines([f"This is leaf {n}."]) for n in range(1, 2001)])
    extracted = read(many)
    assert len(extracted["pages"]) == 2000
    page = extracted["pages"][1233]
    assert extracted["text"][page["start"] : page["end"]] == "This is leaf 1234."


def test_an_encrypted_pdf_wants_its_password(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(clone_from=str(made_documents.make(tmp_path, "pdf", "lock").path))
    writer.encrypt("sesame", algorithm="RC4-128")
    path = tmp_path / "locked.pdf"
    writer.write(str(path))
    assert code(path) == "encrypted_document"
    assert code(path, password="wrong") == "wrong_password"
    assert made_documents.sentence("lock") in read(path, password="sesame")["text"]


def test_scans_and_pictures_are_read_by_tesseract(tmp_path: Path) -> None:
    if not ocr.is_installed():
        missing("tesseract", "apt-get install tesseract-ocr")
    drawn = made_documents.picture("The penstock is closed")
    scan = make_pdf.write(tmp_path / "scan.pdf", [make_pdf.of_lines(["This page has letters of its own."]), drawn])
    extracted = read(scan)
    assert extracted["ocr"] and "penstock is closed" in extracted["text"]
    drawn.save(tmp_path / "photo.png")
    assert "penstock is closed" in read(tmp_path / "photo.png")["text"]


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    assert code(tmp_path / "empty.txt") == "empty_document"
    (tmp_path / "blank.txt").write_text(" \n \n")
    assert read(tmp_path / "blank.txt")["metadata"] == {"no_text": "empty"}
    (tmp_path / "half.pdf").write_bytes(b"%PDF-1.7\nand no more")
    assert code(tmp_path / "half.pdf") == "broken_document"
    blank = make_pdf.write(tmp_path / "blank.pdf", [[]])
    assert read(blank)["metadata"]["no_text"] == "empty"
    bomb = made_documents.bomb(tmp_path / "bomb.docx")
    assert code(bomb) == "archive_bomb"
    laughs = '<!DOCTYPE w [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><w>&b;</w>'
    made_documents.zipped(tmp_path / "x.docx", {"word/document.xml": laughs, "[Content_Types].xml": "<Types/>"})
    assert code(tmp_path / "x.docx") == "archive_bomb"
    kind = "application/vnd.oasis.opendocument.text"
    made_documents.zipped(tmp_path / "x.odt", {"content.xml": laughs}, kind)
    assert code(tmp_path / "x.odt") == "archive_bomb"
    with pytest.raises(InvalidInput) as caught:
        extract_file(bomb, name="x", media_type="application/x-what")
    assert caught.value.code == "unsupported_type"


def test_a_file_is_what_is_in_it_not_what_it_is_called(tmp_path: Path) -> None:
    lying = made_documents.make(tmp_path, "docx", "liar").path.rename(tmp_path / "liar.pdf")
    assert sniff.sniff(lying, "liar.pdf") == sniff.DOCX
    cases = {
        b"\x7fELF\x02\x01\x01" + bytes(60): None, b"MZ" + bytes(64): None,
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(64): None,
        b"PK\x03\x04garbage": None, b"\x1f\x8b" + bytes(30): None, b"plain words": "text/plain",
        b"  <!DOCTYPE html><p>x": sniff.HTML, b"From: a@b\nSubject: x\n\nbody": sniff.EML,
    }  # fmt: skip
    for content, kind in cases.items():
        path = tmp_path / "thing"
        path.write_bytes(content)
        assert sniff.sniff(path, "thing") == kind, content[:20]
    (tmp_path / "notes.md").write_text("# x")
    assert sniff.sniff(tmp_path / "notes.md", "notes.md") == "text/markdown"


def test_thirty_files_are_made_with_one_that_is_hostile(tmp_path: Path) -> None:
    made: list[Made] = made_documents.make_all(tmp_path)
    assert len({file.path for file in made}) == 30
    assert [file.path.name for file in made if file.sentence is None] == ["hostile.docx"]
