"""Limits of extraction: the rest of a file is cut and reported, or the file is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExtractLimits:
    characters: int = 50_000_000
    text_bytes: int = 100 * 1024 * 1024
    rows: int = 200_000
    columns: int = 1_000
    sheets: int = 200
    attachments: int = 100
    pdf_pages: int = 20_000
    # OCR is slow: only this many pages of a scanned book are read.
    scanned_pages: int = 300
    # A sheet of A3 has 8 million pixels at the scale of scans; a poster is read at a lower scale.
    scan_pixels: int = 40_000_000
    picture_pixels: int = 100_000_000
    frames: int = 300
    # For one page, by tesseract.
    ocr_s: float = 120.0


USUAL = ExtractLimits()
