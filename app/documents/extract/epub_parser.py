"""EPUB books: the chapters of the spine, each a page."""

from __future__ import annotations

import posixpath
import zipfile
from pathlib import Path
from urllib.parse import unquote

from lxml import etree

from app.core.errors import InvalidInput
from app.documents.extract import archives
from app.documents.extract.html_parser import to_markdown
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.extract.pages import Pages
from app.documents.extract.plain import decode_html
from app.documents.extract.xml_parser import parse_xml

_NS = {
    "container": "urn:oasis:names:tc:opendocument:xmlns:container",
    "opf": "http://www.idpf.org/2007/opf",
    "dc": "http://purl.org/dc/elements/1.1/",
}


def extract(blob: Path, limits: ExtractLimits = USUAL) -> Pages:
    with archives.open_archive(blob) as archive:
        if archives.read_member(archive, "META-INF/encryption.xml") and archives.read_member(
            archive, "META-INF/rights.xml"
        ):
            raise InvalidInput("the book is encrypted (DRM)", code="encrypted_document")
        place, package = _package(archive)
        pages = Pages(limits)
        pages.title = package.findtext(".//dc:title", None, _NS)
        pages.language = package.findtext(".//dc:language", None, _NS)
        pages.metadata = {"author": package.findtext(".//dc:creator", None, _NS)}
        items = {item.get("id"): item.get("href") for item in package.iterfind(".//opf:manifest/opf:item", _NS)}
        for reference in package.iterfind(".//opf:spine/opf:itemref", _NS):
            href = items.get(reference.get("idref"))
            if not href:
                continue
            chapter = archives.read_member(archive, posixpath.normpath(posixpath.join(place, unquote(href))))
            if chapter is not None:
                pages.add(to_markdown(decode_html(chapter)))
        return pages


def _package(archive: zipfile.ZipFile) -> tuple[str, etree._Element]:
    """Return the folder of the package file, and its root element."""
    container = archives.read_member(archive, "META-INF/container.xml")
    root = parse_xml(container).find(".//container:rootfile", _NS) if container else None
    path = root.get("full-path") if root is not None else None
    package = archives.read_member(archive, path) if path else None
    if path is None or package is None:
        raise InvalidInput("the book is broken: it names no package", code="broken_document")
    return posixpath.dirname(path), parse_xml(package)
