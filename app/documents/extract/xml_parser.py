"""XML of a file's parts, parsed by lxml with all that can expand or fetch switched off."""

from __future__ import annotations

import io

from lxml import etree

from app.core.errors import InvalidInput


def parse_xml(data: bytes) -> etree._Element:
    """Return the root element. No entity is resolved, nothing is fetched, and depth is bounded. Raises InvalidInput."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, recover=False, load_dtd=False)
    try:
        tree = etree.parse(io.BytesIO(data), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise InvalidInput(f"the file is broken: {error}", code="broken_document") from error
    if tree.docinfo.internalDTD is not None and list(tree.docinfo.internalDTD.iterentities()):
        raise InvalidInput("the file defines XML entities, which can expand without bound", code="archive_bomb")
    return tree.getroot()
