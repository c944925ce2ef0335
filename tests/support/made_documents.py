"""Files of every kind that can be read, made here, each with a sentence that is in no other."""

from __future__ import annotations

import email.message
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import docx
import openpyxl
import pptx
from PIL import Image, ImageDraw, ImageFont

from tests.support import make_pdf

ODF_HEAD = (
    '<?xml version="1.0"?><office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
    'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
    'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
    'xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0"><office:body>'
)
ODF_TAIL = "</office:body></office:document-content>"


class Made(NamedTuple):
    """A file, and what is found in it; None where nothing may be."""

    path: Path
    sentence: str | None


def sentence(word: str) -> str:
    return f"The {word} keeps the water from the wheel."


def as_docx(path: Path, text: str) -> None:
    document = docx.Document()
    document.core_properties.title = "A report"
    document.add_heading("Findings", 1)
    document.add_paragraph(text)
    cells = document.add_table(2, 2).rows
    for row, values in zip(cells, (("Part", "Price"), ("Sluice", "12")), strict=True):
        row.cells[0].text, row.cells[1].text = values
    document.save(str(path))


def as_pptx(path: Path, text: str) -> None:
    deck = pptx.Presentation()
    for title in ("First", "Second"):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text if title == "Second" else "Nothing here."
    deck.save(str(path))


def as_xlsx(path: Path, text: str) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices"
    for row in (("Part", "Price", "Note"), ("Sluice", 12.0, text), (None, None, None), ("Wheel", 400.5, "big")):
        sheet.append(row)
    book.create_sheet("Blank")
    book.save(path)


def zipped(path: Path, parts: dict[str, str | bytes], mimetype: str | None = None) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if mimetype is not None:
            archive.writestr("mimetype", mimetype, zipfile.ZIP_STORED)
        for name, content in parts.items():
            archive.writestr(name, content)


def as_odt(path: Path, text: str) -> None:
    body = f'<office:text><text:h text:outline-level="2">Findings</text:h><text:p>{text}</text:p></office:text>'
    zipped(path, {"content.xml": ODF_HEAD + body + ODF_TAIL}, "application/vnd.oasis.opendocument.text")


def as_ods(path: Path, text: str) -> None:
    cell = "<table:table-cell><text:p>{}</text:p></table:table-cell>"
    row = "<table:table-row>{}</table:table-row>"
    rows = row.format(cell.format("Part") + cell.format("Note")) + row.format(cell.format("Sluice") + cell.format(text))
    body = f'<office:spreadsheet><table:table table:name="Prices">{rows}</table:table></office:spreadsheet>'
    zipped(path, {"content.xml": ODF_HEAD + body + ODF_TAIL}, "application/vnd.oasis.opendocument.spreadsheet")


def as_epub(path: Path, text: str, chapter: bytes | None = None) -> None:
    """A book of two chapters, the second with the text or as it is given."""
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="in/book.opf"/></rootfiles></container>'
    )
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        "<dc:title>A book</dc:title><dc:language>en</dc:language></metadata><manifest>"
        '<item id="a" href="a.xhtml"/><item id="b" href="b%20b.xhtml"/></manifest>'
        '<spine><itemref idref="a"/><itemref idref="b"/></spine></package>'
    )
    form = "<html><body><h1>{}</h1><p>{}</p></body></html>"
    parts: dict[str, str | bytes] = {"META-INF/container.xml": container, "in/book.opf": package}
    parts |= {"in/a.xhtml": form.format("One", "Nothing."), "in/b b.xhtml": chapter or form.format("Two", text)}
    zipped(path, parts, "application/epub+zip")


def as_eml(path: Path, text: str, attachment: bytes | None = None) -> None:
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = "miller@example.org", "baker@example.org", "The gate"
    message["Date"] = "Mon, 02 Nov 2026 10:00:00 +0000"
    message.set_content(text)
    message.add_alternative(f"<p>{text}</p>", subtype="html")
    if attachment is not None:
        message.add_attachment(attachment, maintype="text", subtype="plain", filename="notes.txt")
    path.write_bytes(message.as_bytes())


def as_rtf(path: Path, text: str) -> None:
    path.write_text(r"{\rtf1\ansi{\fonttbl\f0\fswiss Helvetica;}\f0\pard " + text + r"\par}")


def as_pdf(path: Path, text: str) -> None:
    heading = make_pdf.Line("Findings", 72, 770, 22)
    make_pdf.write(path, [[heading, *make_pdf.of_lines(["Something first.", text, "Something last."])]], title="A plan")


def picture(text: str) -> Image.Image:
    drawn = Image.new("L", (1240, 1754), 255)
    ImageDraw.Draw(drawn).text((80, 200), text, fill=0, font=ImageFont.load_default(44))
    return drawn


_WRITERS: dict[str, Callable[[Path, str], None]] = {
    "docx": as_docx, "pptx": as_pptx, "xlsx": as_xlsx, "odt": as_odt, "ods": as_ods, "epub": as_epub, "eml": as_eml,
    "rtf": as_rtf, "pdf": as_pdf,
    "md": lambda path, text: _write(path, f"# Findings\n\n{text}\n", "utf-8"),
    "txt": lambda path, text: _write(path, f"Grüße.\n\n{text}\n", "utf-16"),
    "csv": lambda path, text: _write(path, f"Part;Note\nSluice;{text}\n", "cp1252"),
    "html": lambda path, text: _write(path, f"<html><body><article><p>{text}</p></article></body></html>", "utf-8"),
}  # fmt: skip


def _write(path: Path, text: str, encoding: str) -> None:
    path.write_bytes(text.encode(encoding))


def make(folder: Path, ending: str, word: str) -> Made:
    """One file of the kind that its ending names."""
    path = folder / f"{word}.{ending}"
    _WRITERS[ending](path, sentence(word))
    return Made(path, sentence(word))


def kinds() -> list[str]:
    return sorted(_WRITERS)


def bomb(path: Path) -> Path:
    """A Word file whose one part grows by a thousand."""
    zipped(path, {"word/document.xml": b"<w>" + b" " * 30_000_000 + b"</w>", "[Content_Types].xml": b"<Types/>"})
    return path


def make_all(folder: Path, count: int = 30) -> list[Made]:
    """So many files of all kinds, the last of them hostile."""
    made = [make(folder, kinds()[n % len(kinds())], f"sluice{n:02d}gate") for n in range(count - 1)]
    return [*made, Made(bomb(folder / "hostile.docx"), None)]
