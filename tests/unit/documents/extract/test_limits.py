"""Excess is cut and reported, a misleading name or first bytes do not change the kind, torn files are errors."""

from __future__ import annotations

import io
import random
from pathlib import Path

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.core.errors import InvalidInput
from app.documents.extract import ocr
from app.documents.extract.file import extract_file
from app.documents.extract.limits import ExtractLimits
from app.documents.files import sniff
from tests.support import made_documents, make_pdf
from tests.support.extraction import code, read
from tests.support.services import missing


def test_a_table_that_was_cut_says_so(tmp_path: Path) -> None:
    """Rows, columns and sheets; a whole one says nothing."""
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b\n" + "1,2\n" * 50)
    assert "truncated" not in read(rows)["metadata"]
    few = ExtractLimits(rows=20, columns=3, sheets=2)
    cut = read(rows, limits=few)
    assert cut["metadata"]["truncated"] == [{"what": "rows", "limit": 20}]
    assert cut["text"].count("| 1 | 2 |") == 19
    wide = tmp_path / "wide.csv"
    wide.write_text("a,b,c,d\n1,2,3,4\n")
    assert read(wide, limits=few)["metadata"]["truncated"] == [{"what": "columns", "limit": 3}]
    wide.write_text("a,b,c,,,\n1,2,3,,,\n")
    assert "truncated" not in read(wide, limits=few)["metadata"]
    book = openpyxl.Workbook()
    for number in range(4):
        book.create_sheet(f"s{number}").append([f"cell{number}"])
    book.save(tmp_path / "book.xlsx")
    assert read(tmp_path / "book.xlsx", limits=few)["metadata"]["truncated"] == [{"what": "sheets", "limit": 2}]


def test_wide_and_narrow_rows_take_no_more_room_than_they_say(tmp_path: Path) -> None:
    """One row of many cells among many short ones: the short ones stay short."""
    path = tmp_path / "uneven.csv"
    path.write_text("\n".join(["x"] * 5000 + [",".join(["y"] * 1000)]))
    text = read(path)["text"]
    assert len(text) < 10 * path.stat().st_size + 5000 // 40 * 6 * 1000
    assert "\n| x |\n" in text


def test_attachments_beyond_the_limit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "m.eml"
    made_documents.as_eml(path, "a letter", b"attached")
    truncated = read(path, limits=ExtractLimits(attachments=0))["metadata"]["truncated"]
    assert truncated == [{"what": "attachments", "limit": 0}]


def test_too_much_text_and_too_many_pages_are_refused(tmp_path: Path) -> None:
    for name, head in (("long.txt", "a "), ("long.rtf", "{\\rtf1 a "), ("long.csv", "a,b\n")):
        path = tmp_path / name
        path.write_text(head * 100)
        assert code(path, limits=ExtractLimits(text_bytes=100)) == "document_size"
    made = make_pdf.write(tmp_path / "p.pdf", [make_pdf.of_lines(["one"]), make_pdf.of_lines(["two"])])
    assert code(made, limits=ExtractLimits(pdf_pages=1)) == "too_many_pages"


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("note.txt", b"BM is the sign of the mill, it says.", "text/plain"),
        ("note.md", b"# PDF\n\nA file begins with `%PDF-1.7`, says the norm.\n", "text/markdown"),
        ("scan.pdf", b"\n\n%PDF-1.4\n", sniff.PDF),
        ("scan.bin", b"\x00\x01junk%PDF-1.4\n", sniff.PDF),
        ("wide.txt", "Wide letters without a mark".encode("utf-16-le"), "text/plain"),
        ("wide.txt", "Wide letters without a mark".encode("utf-16-be"), "text/plain"),
        ("old.doc", sniff.OLE + bytes(600), None),
        ("locked.docx", sniff.OLE + bytes(600) + "EncryptedPackage".encode("utf-16-le"), sniff.LOCKED_OFFICE),
    ],
)
def test_a_beginning_alone_does_not_make_a_kind(tmp_path: Path, name: str, data: bytes, kind: str | None) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert sniff.sniff(path, name) == kind


def test_a_locked_office_file_says_that_it_is(tmp_path: Path) -> None:
    path = tmp_path / "locked.docx"
    path.write_bytes(sniff.OLE + bytes(600) + "EncryptedPackage".encode("utf-16-le"))
    assert code(path) == "encrypted_document"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Wide letters without any mark at their beginning", "utf-16-le"),
        ("Wide letters without any mark at their beginning", "utf-16-be"),
        ("בית הספר נמצא ליד הנהר הגדול והילדים הולכים אליו בכל בוקר ברגל", "iso-8859-8"),
        ("בית הספר נמצא ליד הנהר הגדול והילדים הולכים אליו בכל בוקר ברגל", "cp1255"),
        ("مدرسة القرية تقع بجانب النهر الكبير ويذهب إليها الأطفال كل صباح", "cp1256"),
        ("Школа деревни стоит у большой реки, и дети ходят туда каждое утро пешком", "koi8-r"),
        ("Школа деревни стоит у большой реки, и дети ходят туда каждое утро пешком", "cp1251"),
        ("村の学校は大きな川のそばにあり、子供たちは毎朝歩いて通っています。", "shift_jis"),
        ("村の学校は大きな川のそばにあり、子供たちは毎朝歩いて通っています。", "euc-jp"),
        ("乡村学校位于大河旁边，孩子们每天早上步行去上学。", "gb18030"),
        ("시골 학교는 큰 강 옆에 있고 아이들은 매일 아침 걸어서 다닙니다.", "euc-kr"),
        ("Größe und Übermut, während die Mühle mahlt", "cp1252"),
    ],
)
def test_text_in_the_encodings_of_many_lands(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes((text + "\n").encode(encoding) * 3)
    assert text in read(path)["text"]


def test_a_page_describes_itself(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        "<!doctype html><html><head><title>T</title><meta name=description content='What it is about'></head>"
        "<body><main><p>" + "The mill grinds. " * 20 + "</p></main></body></html>"
    )
    assert read(path)["description"] == "What it is about"


def test_scans_that_were_not_read_are_named(tmp_path: Path) -> None:
    """A file with a page of text and a scan, with no scanned page allowed, and with a tesseract that fails."""
    scan = made_documents.picture("SLUICE")
    path = make_pdf.write(tmp_path / "mixed.pdf", [make_pdf.of_lines(["The heron waits here."]), scan])
    extracted = read(path, limits=ExtractLimits(scanned_pages=0))
    assert extracted["metadata"]["unread_pages"] == [2]
    assert extracted["metadata"]["truncated"] == [{"what": "scanned_pages", "limit": 0}]
    assert "heron" in extracted["text"]
    if not ocr.is_installed():
        missing("tesseract", "apt-get install tesseract-ocr")
    hurried = ExtractLimits(ocr_s=0.001)
    extracted = read(path, limits=hurried)
    assert extracted["metadata"]["unread_pages"] == [2] and "heron" in extracted["text"]
    alone = make_pdf.write(tmp_path / "scan.pdf", [scan])
    assert code(alone, limits=hurried) == "ocr_failed"
    picture = tmp_path / "p.png"
    scan.save(picture)
    assert code(picture, limits=hurried) == "ocr_failed"


def test_frames_beyond_the_limit_are_told(tmp_path: Path) -> None:
    if not ocr.is_installed():
        missing("tesseract", "apt-get install tesseract-ocr")
    frames = [made_documents.picture("SLUICE"), made_documents.picture("HERON")]
    path = tmp_path / "two.tiff"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    extracted = read(path, limits=ExtractLimits(frames=1))
    assert extracted["metadata"]["truncated"] == [{"what": "frames", "limit": 1}]
    assert len(extracted["pages"]) == 1


def test_a_poster_is_scanned_within_bounds(tmp_path: Path) -> None:
    """The picture of a page has no more pixels than that, however large the page: here too few to be read."""
    if not ocr.is_installed():
        missing("tesseract", "apt-get install tesseract-ocr")
    path = make_pdf.write(tmp_path / "poster.pdf", [made_documents.picture("SLUICE")])
    assert "SLUICE" in read(path)["text"]
    try:
        assert read(path, limits=ExtractLimits(scan_pixels=400))["metadata"]["no_text"] == "empty"
    except InvalidInput as error:  # some versions of tesseract refuse so small a picture
        assert error.code == "ocr_failed"


_WHOLE: dict[str, bytes] = {}


def _whole(folder: Path, ending: str) -> bytes:
    if ending not in _WHOLE:
        if ending in ("png", "tiff", "jpg", "gif", "bmp", "webp"):
            data = io.BytesIO()
            Image.new("RGB", (40, 20), "white").save(data, {"jpg": "JPEG"}.get(ending, ending.upper()))
            _WHOLE[ending] = data.getvalue()
        else:
            _WHOLE[ending] = made_documents.make(folder, ending, "penstock").path.read_bytes()
    return _WHOLE[ending]


@pytest.mark.parametrize("ending", [*made_documents.kinds(), "png", "tiff", "jpg", "gif", "bmp", "webp"])
@settings(
    max_examples=25, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(st.floats(0, 1), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6))
def test_a_torn_or_bitten_file_is_a_text_or_a_permanent_error(
    tmp_path: Path, ending: str, fraction: float, bites: list[tuple[float, int]]
) -> None:
    """Never another exception, which would be tried again as if it were a bug of ours."""
    whole = bytearray(_whole(tmp_path, ending))
    for place, byte in bites:
        whole[int(place * (len(whole) - 1))] = byte
    path = tmp_path / f"torn{random.getrandbits(30)}.{ending}"
    path.write_bytes(whole[: int(fraction * len(whole))] if fraction < 0.9 else whole)
    kind = sniff.sniff(path, path.name)
    if kind is None:
        return
    try:
        extract_file(path, name=path.name, media_type=kind)
    except InvalidInput as error:
        assert error.code
