"""Find the element of a cleaned page that holds its content."""

from __future__ import annotations

import logging

import trafilatura
from lxml.etree import LxmlError
from selectolax.lexbor import LexborNode

from app.documents.extract.html_clean_parser import length, matches

# Errors that the tree code of lxml and trafilatura raises on unexpected mark-up.
_TRIPPED = (
    LxmlError, ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError
)  # fmt: skip
# An element named main is the content if it holds this share of the page's text, or so much text.
MIN_MAIN_SHARE, MIN_MAIN_CHARACTERS = 0.15, 200
# One article among several is the content if it holds this share of the text of all.
MIN_FIRST_SHARE = 0.6
# That article's share of the main element, or of the whole page.
MIN_ARTICLE_SHARE, MIN_ARTICLE_SHARE_OF_PAGE = 0.5, 0.25
# The share of the page's text that trafilatura must extract for its choice to count.
MIN_EXTRACTED_SHARE = 0.4
# An element with this share of the extracted text holds the content.
MIN_HELD_SHARE = 0.95
MIN_PIECE_CHARACTERS = 20
_CONTAINERS = {"div", "section", "article", "main", "center", "body"}
_STRUCTURES = "table, pre, h1, h2, ol, dl, figure"
MAX_NEIGHBOUR_LINKS = 0.5
# Blocks of links are menus, unless they are most of the page.
MIN_LINKS, MIN_LINK_SHARE, MAX_MENU_SHARE = 3, 0.75, 0.6
_MENUS = {"ul", "ol", "dl", "div", "section", "table", "p", "td", "li"}

# Trafilatura reports an odd page as an error, which it is not here.
logging.getLogger("trafilatura").setLevel(logging.CRITICAL + 1)


def find_main(body: LexborNode, url: str | None) -> LexborNode:
    """Return the element named main or article, else the one around the text that trafilatura extracts, else the body.

    The body is the answer if the others hold little of the page's visible text: a page without an article is read as
    a whole, without its menus.
    """
    characters = length(body)
    main = max(body.css("main, [role=main]"), key=length, default=None)
    if main is not None and (length(main) >= MIN_MAIN_CHARACTERS or length(main) >= MIN_MAIN_SHARE * characters > 0):
        return _chief_article(main, MIN_ARTICLE_SHARE) or main
    article = _chief_article(body, MIN_ARTICLE_SHARE_OF_PAGE)
    if article is not None:
        return article
    if body.css_first("article") is None:
        around = _around(body, _extract(body.html or "", url), characters)
        if around.mem_id != body.mem_id:
            return around
    _drop_menus(body, characters)
    return body


def _chief_article(part: LexborNode, min_share: float) -> LexborNode | None:
    """Return the article that is the content of this part, if one is."""
    articles = [node for node in part.css("article") if not _is_inside(node, "article", part)]
    chief = max(articles, key=length, default=None)
    if chief is None or length(chief) < min_share * length(part):
        return None
    return chief if length(chief) >= MIN_FIRST_SHARE * sum(map(length, articles)) else None


def _is_inside(node: LexborNode, tag: str, part: LexborNode) -> bool:
    above = node.parent
    while above is not None and above.mem_id != part.mem_id:
        if above.tag == tag:
            return True
        above = above.parent
    return False


def _drop_menus(body: LexborNode, characters: int) -> None:
    menus = matches(body, lambda node, _: node.tag in _MENUS and _is_menu(node))
    if sum(map(length, menus)) <= MAX_MENU_SHARE * characters:
        for node in menus:
            node.decompose()


def _is_menu(node: LexborNode) -> bool:
    links = node.css("a")
    return len(links) >= MIN_LINKS and sum(map(length, links)) >= MIN_LINK_SHARE * max(1, length(node))


def _extract(html: str, url: str | None) -> str:
    try:
        text = trafilatura.extract(html, url=url, output_format="txt", include_comments=False, include_tables=True)
    except _TRIPPED:
        return ""  # odd mark-up breaks trafilatura's tree code; the page is read as a whole
    return text or ""


def _around(body: LexborNode, extracted: str, characters: int) -> LexborNode:
    """Return the innermost element that holds nearly all pieces of text that were extracted."""
    flat = "".join(extracted.split())
    held: dict[int, int] = {}
    total = 0
    elements: list[LexborNode] = []
    for node in body.traverse(include_text=True):
        if node.tag != "-text":
            elements.append(node)
            continue
        piece = "".join((node.text_content or "").split())
        if len(piece) < MIN_PIECE_CHARACTERS or piece not in flat:
            continue
        total += len(piece)
        above = node.parent
        while above is not None:
            held[above.mem_id] = held.get(above.mem_id, 0) + len(piece)
            above = None if above.mem_id == body.mem_id else above.parent
    if total < MIN_EXTRACTED_SHARE * characters:
        return body
    holders = [node for node in elements if held.get(node.mem_id, 0) >= MIN_HELD_SHARE * total]
    return _with_neighbours(holders[-1], body) if holders else body  # in the page's order: the last is the innermost


def _with_neighbours(node: LexborNode, body: LexborNode) -> LexborNode:
    """Return the element, or one above it that also holds a table, code or a heading next to it."""
    while node.mem_id != body.mem_id and (parent := node.parent) is not None:
        more = length(parent) - length(node)
        links = sum(map(length, parent.css("a"))) - sum(map(length, node.css("a")))
        is_part = node.tag not in _CONTAINERS
        is_rich = len(parent.css(_STRUCTURES)) > len(node.css(_STRUCTURES))
        if not is_part and (not is_rich or more > length(node) or links > MAX_NEIGHBOUR_LINKS * more):
            break
        node = parent
    return node
