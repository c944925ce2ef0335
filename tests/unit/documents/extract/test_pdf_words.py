"""Words of PDF files: whole and divided, however the program that wrote the file places its letters."""

from __future__ import annotations

import subprocess
from itertools import groupby
from pathlib import Path

import pytest

from app.clients.browser import find_chromium
from app.documents.extract.pdf.pdf_bidi import PdfGlyph, in_reading_order
from tests.support import made_documents, make_pdf
from tests.support.extraction import read
from tests.support.make_pdf import Drawn, placed
from tests.support.services import missing

SENTENCE = "Beautiful is better than ugly, and the fish ladder was repaired."


def _text(folder: Path, *pages: Drawn, rotate: int = 0) -> str:
    return str(read(make_pdf.write(folder / "made.pdf", list(pages), rotate=rotate))["text"])


@pytest.mark.parametrize("size", [4, 11, 40])
def test_glyphs_placed_one_by_one_are_words(tmp_path: Path, size: float) -> None:
    """With glyphs for the spaces, and without."""
    for spaces in (True, False):
        content = placed(SENTENCE[:30], 20, 700, size, spaces=spaces) + placed("Short is long.", 20, 500, spaces=spaces)
        assert " ".join(_text(tmp_path, Drawn(content)).replace("#", "").split()) == f"{SENTENCE[:30]} Short is long."


def test_kerned_words_stay_whole_and_are_divided(tmp_path: Path) -> None:
    """As pdfTeX writes: an array of parts, moved by kerning or by the width of a space."""
    content = "BT /F1 11 Tf 72 700 Td [(W)80(a)15(ter)-278(AV)70(A)-250(w)10(heels)-420(turn)] TJ ET"
    assert _text(tmp_path, Drawn(content)) == "Water AVA wheels turn"


@pytest.mark.parametrize("spacing", [0.05, 0.1, 0.2, 0.4])
def test_a_heading_set_with_space_between_its_letters_is_words(tmp_path: Path, spacing: float) -> None:
    for spaces in (True, False):
        content = placed("SPACED HEADING TEXT", 40, 700, 14, spacing=spacing, spaces=spaces)
        assert _text(tmp_path, Drawn(content)) == "SPACED HEADING TEXT"
    by_operator = f"BT /F1 12 Tf {12 * spacing:.2f} Tc 40 600 Td (Spaced heading text) Tj ET"
    assert _text(tmp_path, Drawn(by_operator)) == "Spaced heading text"


def test_a_ligature_is_part_of_its_word(tmp_path: Path) -> None:
    content = "BT /F1 11 Tf 72 700 Td (the \\001sh of the of\\001ce) Tj ET " + placed("at the\x01eld", 72, 600)
    assert _text(tmp_path, Drawn(content)).split() == ["the", "fish", "of", "the", "office", "at", "thefield"]


def test_single_letters_and_numbers_of_a_table_stay_apart(tmp_path: Path) -> None:
    cells = "".join(placed(letter, 60 + 60 * n, 700) for n, letter in enumerate("ABCDEF"))
    cells += "".join(placed(str(n), 60 + 60 * n, 680) for n in range(6))
    steps = "".join(placed(str(10 * n), 20, 600 - 40 * n) for n in range(5))
    assert _text(tmp_path, Drawn(cells + steps)).split() == [*"ABCDEF", *"012345", "0", "10", "20", "30", "40"]


def test_turned_text_is_words(tmp_path: Path) -> None:
    """A page turned as a whole, and a line that runs up the page."""
    content = placed(SENTENCE, 40, 700) + " BT /F1 11 Tf 0 1 -1 0 30 100 Tm (The margin says more) Tj ET"
    for rotate in (0, 90, 180, 270):
        text = _text(tmp_path, Drawn(content), rotate=rotate)
        assert SENTENCE in text and "The margin says more" in text


def test_a_word_divided_at_the_end_of_a_line_is_whole(tmp_path: Path) -> None:
    content = placed("The mill was repa-", 72, 700) + placed("ired in spring.", 72, 686)
    assert _text(tmp_path, Drawn(content)) == "The mill was repaired in spring."


def test_text_below_a_scan_is_read(tmp_path: Path) -> None:
    """Invisible text over a picture, as scanners write it."""
    layer = "q 595 0 0 842 0 0 cm /I Do Q BT 3 Tr /F1 12 Tf 72 700 Td (The layer of the scan has words) Tj ET"
    page = Drawn(layer, picture=made_documents.picture("unread"))
    assert _text(tmp_path, page) == "The layer of the scan has words"


def test_two_columns_written_row_by_row_are_read_one_after_the_other(tmp_path: Path) -> None:
    rows = "".join(
        placed(f"left {n} row", 60, 700 - 14 * n) + placed(f"right {n} row", 330, 700 - 14 * n) for n in range(9)
    )
    text = _text(tmp_path, Drawn(rows))
    assert text.index("left 8 row") < text.index("right 0 row")


def test_a_page_printed_by_chromium_has_its_words(tmp_path: Path) -> None:
    chromium = find_chromium()
    if chromium is None:
        missing("chromium", "apt-get install chromium")
    words = "The water level fell by twelve centimetres in March, and the fish ladder was repaired."
    page = tmp_path / "page.html"
    hebrew, arabic = "בית הספר נמצא ליד הנהר הגדול", "مدرسة القرية تقع بجانب النهر الكبير"
    page.write_text(
        f"<meta charset=utf-8><h1>Quarterly report</h1><p>{words}</p>"
        "<p style='letter-spacing:3px'>Spaced heading text</p><table><tr><td>January</td><td>14</td></tr></table>"
        f"<p style='text-align:justify;width:220px'>{words}</p><p dir=rtl>{hebrew}</p><p dir=rtl>{arabic}</p>",
        "utf-8",
    )
    made = tmp_path / "page.pdf"
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--no-pdf-header-footer", f"--print-to-pdf={made}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    text = read(made)["text"]
    flat = " ".join(text.split())
    assert flat.count(words) == 2
    assert "# Quarterly report" in text and "Spaced heading text" in text and "January 14" in text
    assert hebrew in flat and arabic in flat


def test_values_of_fields_and_comments_of_a_page_are_read(tmp_path: Path) -> None:
    """Also without an appearance; not what is hidden, nor a password."""
    rect = "/Rect [72 600 300 620] /P 1 0 R"
    notes = (
        f"<< /Type /Annot /Subtype /Widget /FT /Tx /T (mill) /TU (Name of the mill) /V (Upper Sluice) {rect} >>",
        f"<< /Type /Annot /Subtype /Widget /FT /Ch /Ff 131072 /T (wood) /Opt [(oak) (elm)] /V (elm) {rect} >>",
        f"<< /Type /Annot /Subtype /Widget /FT /Tx /Ff 8192 /T (secret) /V (sesame) {rect} >>",
        f"<< /Type /Annot /Subtype /Widget /FT /Btn /T (runs) /V /On /AS /On {rect} /AP << /N << /On << >> >> >> >>",
        f"<< /Type /Annot /Subtype /Text /T (Ada) /Contents (Please measure again.) {rect} >>",
        f"<< /Type /Annot /Subtype /Text /F 2 /T (Bo) /Contents (Not for eyes.) {rect} >>",
    )
    text = _text(tmp_path, Drawn(placed("The form of the mill", 72, 700), notes))
    assert "The form of the mill" in text
    for words in ("Upper Sluice", "elm", "runs: On", "Ada: Please measure again."):
        assert words in text
    assert "sesame" not in text and "Not for eyes" not in text


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ("םלוע םולש", "שלום עולם"),
        ("םולש דואמ 25 words בוט", "טוב 25 words מאוד שלום"),
        ("ريبكلا رهنلا بناجب", "بجانب النهر الكبير"),
    ],
)
def test_words_from_right_to_left_are_in_the_order_of_reading(shown: str, text: str) -> None:
    """`shown` is the line from left to right. Files have letters in that order, in that of each word, or as read."""
    line = [PdfGlyph(letter, False, 10 * at, 10 * at + 9, 0, 10, False) for at, letter in enumerate(shown)]
    words = [list(word) for _, word in groupby(line, lambda glyph: glyph.text == " ")]
    by_word = [glyph for word in reversed(words) for glyph in word]
    as_read = [glyph for word in reversed(words) for glyph in reversed(word)]
    for glyphs in (line, by_word, as_read) if "25" not in text else (line,):
        assert "".join(glyph.text for glyph in in_reading_order(glyphs)) == text
