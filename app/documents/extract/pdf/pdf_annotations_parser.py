"""Read what lies on a PDF page: values of form fields, comments, text boxes, stamps."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as raw

MAX_ANNOTATIONS = 5_000
MAX_CHARACTERS = 1_000_000
_PASSWORD_FLAG = 1 << 13
_VALUED = (raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX, raw.FPDF_FORMFIELD_TEXTFIELD)
_CHECKED = (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON)
# A popup shows the text of another annotation; a link has the text below it.
_SILENT = (raw.FPDF_ANNOT_POPUP, raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_WIDGET)


def flatten(document: Any, number: int) -> tuple[Any, list[str]]:
    """Open a page whose annotations are part of its content; return it with the texts that none of them shows.

    Numbers count from zero. The texts are `name: value` of a field, and comments with their author.
    """
    page = document[number]
    if raw.FPDFPage_GetAnnotCount(page) < 1:
        return page, []
    texts = list(_texts(document.formenv, page))
    if raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY) == raw.FLATTEN_SUCCESS:
        page.close()
        page = document[number]
    return page, texts


def missing_texts(texts: list[str], shown: str) -> list[str]:
    """Return the texts that the page's own text does not contain."""
    flat = _flat(shown)
    return [text for text in dict.fromkeys(texts) if _flat(text.partition(": ")[2] or text) not in flat]


def _flat(text: str) -> str:
    words = " ".join(re.findall(r"\w+", text)).casefold()
    return f" {words} "


def _texts(form: Any, page: pdfium.PdfPage) -> Iterator[str]:
    for number in range(min(raw.FPDFPage_GetAnnotCount(page), MAX_ANNOTATIONS)):
        annotation = raw.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        try:
            is_hidden = raw.FPDFAnnot_GetFlags(annotation) & raw.FPDF_ANNOT_FLAG_HIDDEN
            kind = raw.FPDFAnnot_GetSubtype(annotation)
            text = "" if is_hidden else _field(form, annotation) if kind == raw.FPDF_ANNOT_WIDGET else ""
            if not is_hidden and kind not in _SILENT:
                text = _comment(annotation)
        finally:
            raw.FPDFPage_CloseAnnot(annotation)
        if text:
            yield text


def _field(form: Any, annotation: Any) -> str:
    """Return `name: value` of a form field; blank for a field without a value."""
    if form is None:
        return ""
    kind = raw.FPDFAnnot_GetFormFieldType(form, annotation)
    name = _string(lambda *to: raw.FPDFAnnot_GetFormFieldAlternateName(form, annotation, *to))
    name = name or _string(lambda *to: raw.FPDFAnnot_GetFormFieldName(form, annotation, *to))
    if kind in _VALUED and not raw.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD_FLAG:
        value = _string(lambda *to: raw.FPDFAnnot_GetFormFieldValue(form, annotation, *to)) or _selected(
            form, annotation
        )
    elif kind in _CHECKED and raw.FPDFAnnot_IsChecked(form, annotation):
        value = _string(lambda *to: raw.FPDFAnnot_GetFormFieldExportValue(form, annotation, *to)) or "Yes"
    else:
        return ""
    return f"{name}: {value}" if name and value else value


def _selected(form: Any, annotation: Any) -> str:
    """Return the chosen lines of a list."""
    count = min(raw.FPDFAnnot_GetOptionCount(form, annotation), MAX_ANNOTATIONS)
    chosen = [number for number in range(max(0, count)) if raw.FPDFAnnot_IsOptionSelected(form, annotation, number)]
    labels = [
        _string(lambda *to, number=number: raw.FPDFAnnot_GetOptionLabel(form, annotation, number, *to))
        for number in chosen
    ]
    return ", ".join(label for label in labels if label)


def _comment(annotation: Any) -> str:
    text = _string(lambda *to: raw.FPDFAnnot_GetStringValue(annotation, b"Contents", *to))
    author = _string(lambda *to: raw.FPDFAnnot_GetStringValue(annotation, b"T", *to))
    return f"{author}: {text}" if text and author else text


def _string(read: Callable[..., int]) -> str:
    """Return the string that a function of PDFium writes into a buffer as UTF-16."""
    size = read(None, 0)
    if not 2 < size < MAX_CHARACTERS * 2:
        return ""
    buffer = (ctypes.c_ushort * (size // 2 + 1))()
    read(buffer, size)
    return " ".join(bytes(buffer)[: size - 2].decode("utf-16-le", "replace").split())
