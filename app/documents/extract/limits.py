"""How much of a file is read: what is more is cut and said so, or refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    characters: int = 50_000_000
    text_bytes: int = 100 * 1024 * 1024
    rows: int = 200_000
    columns: int = 1_000
    sheets: int = 200
    attachments: int = 100
    pdf_pages: int = 20_000
    # Scanning is slow: a thick scanned book is read so far.
    scanned_pages: int = 300
    # A sheet of A3 has 8 million at the scale of scans; a poster is read more coarsely.
    scan_pixels: int = 40_000_000
    picture_pixels: int = 100_000_000
    frames: int = 300
    # For one page, by tesseract.
    ocr_s: float = 120.0


USUAL = Limits()
