"""PDF files by hand: pages of lines at their places, rotated, with pictures; no library that ships with the program."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image


class Line(NamedTuple):
    """A line of Helvetica, its place counted from the lower left corner in points."""

    text: str
    left: float
    bottom: float
    size: float = 11


def of_lines(texts: Sequence[str]) -> list[Line]:
    """A page from top to bottom."""
    return [Line(text, 72, 740 - 16 * number) for number, text in enumerate(texts)]


class Drawn(NamedTuple):
    """A page by its content stream; F1 is Helvetica, in which byte 1 is the ligature fi. `notes` are annotations."""

    content: str
    notes: tuple[str, ...] = ()
    picture: Image.Image | None = None


# Advance widths of Helvetica in thousandths of its size, by Adobe's metrics.
_WIDTHS = {
    **dict.fromkeys("ijl'", 222), **dict.fromkeys(" t.,fI/!:;\\", 278), **dict.fromkeys("r()-", 333),
    **dict.fromkeys("ckvxyzs J", 500), **dict.fromkeys("CDHNRUw", 722), **dict.fromkeys("ABEKPSVXY", 667),
    **dict.fromkeys("FTZ", 611), **dict.fromkeys("GOQ", 778), "m": 833, "M": 833, "W": 944, "w": 722, " ": 278,
}  # fmt: skip


def width(text: str) -> float:
    """The advance width of the text in sizes."""
    return sum(_WIDTHS.get(letter, 556) for letter in text) / 1000


def placed(text: str, left: float, bottom: float, size: float = 11, *, spacing: float = 0, spaces: bool = True) -> str:
    """Operators that place glyph after glyph, as Skia does; `spaces`: also those of the spaces."""
    parts, at = [], left
    for letter in text:
        if spaces or letter != " ":
            parts.append(f"1 0 0 1 {at:.2f} {bottom:g} Tm ({_escaped(letter).decode('latin-1')}) Tj")
        at += (width(letter) + spacing) * size
    return f"BT /F1 {size:g} Tf {' '.join(parts)} ET"


def write(
    path: Path, pages: Sequence[Sequence[Line] | Image.Image | Drawn], *, rotate: int = 0, title: str = ""
) -> Path:
    """The file, each page of lines or one picture."""
    objects: list[bytes] = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    encoding = b"<< /BaseEncoding /WinAnsiEncoding /Differences [ 1 /fi ] >>"
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding %s >>" % encoding)
    objects.append(f"<< /Title ({title}) >>".encode("latin-1"))
    kids: list[str] = []
    widgets: list[str] = []
    for page in pages:
        resources, notes = "/Font << /F1 3 0 R >>", []
        if isinstance(page, Image.Image):
            objects.append(_picture(page))
            resources = f"/XObject << /I {len(objects)} 0 R >>"
            drawn = b"q 595 0 0 842 0 0 cm /I Do Q"
        elif isinstance(page, Drawn):
            drawn = page.content.encode("latin-1")
            if page.picture is not None:
                objects.append(_picture(page.picture))
                resources += f" /XObject << /I {len(objects)} 0 R >>"
            for note in page.notes:
                objects.append(note.encode("latin-1"))
                notes.append(f"{len(objects)} 0 R")
        else:
            drawn = b"\n".join(
                b"BT /F1 %g Tf 1 0 0 1 %g %g Tm (%s) Tj ET" % (line.size, line.left, line.bottom, _escaped(line.text))
                for line in page
            )
        objects.append(_stream(drawn))
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Rotate {rotate} /Contents {len(objects)} 0 R "
            f"/Resources << {resources} >> /Annots [ {' '.join(notes)} ] >>".encode()
        )
        kids.append(f"{len(objects)} 0 R")
        widgets += notes
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    if widgets:
        form = f"/AcroForm << /Fields [ {' '.join(widgets)} ] /DR << /Font << /F1 3 0 R >> >> /DA (/F1 11 Tf) >>"
        objects[0] = f"<< /Type /Catalog /Pages 2 0 R {form} >>".encode()
    path.write_bytes(_file(objects))
    return path


def _escaped(text: str) -> bytes:
    return text.encode("cp1252", "replace").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def _stream(data: bytes, about: str = "") -> bytes:
    packed = zlib.compress(data)
    return b"<< /Length %d /Filter /FlateDecode %s >>\nstream\n%s\nendstream" % (len(packed), about.encode(), packed)


def _picture(picture: Image.Image) -> bytes:
    grey = picture.convert("L")
    about = f"/Type /XObject /Subtype /Image /Width {grey.width} /Height {grey.height} "
    return _stream(grey.tobytes(), about + "/ColorSpace /DeviceGray /BitsPerComponent 8")


def _file(objects: Sequence[bytes]) -> bytes:
    out, places = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info 4 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)
