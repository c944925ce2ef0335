"""Remove from a page the parts that are not its content: hidden text, banners, menus, comments, footers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

# Elements without text of the page.
_VOID = {
    "script", "style", "noscript", "template", "svg", "iframe", "frame", "object", "embed", "applet", "canvas", "audio",
    "video", "map", "datalist", "head", "link", "meta", "select", "textarea", "input", "progress", "meter",
    "clipboard-copy",
}  # fmt: skip
_NAVIGATION = {"nav", "footer", "aside", "dialog"}
_ROLES = {
    "navigation", "contentinfo", "search", "dialog", "alertdialog", "menu", "menubar", "toolbar", "tablist", "tooltip",
    "complementary",
}  # fmt: skip
_TITLES = {"h1", "h2", "h3", "h4", "h5", "h6", "dt", "summary"}
_HIDING = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|(?:left|top|text-indent)\s*:\s*-\d{4,}|"
    r"clip\s*:\s*rect\(\s*0)",
    re.IGNORECASE,
)
# Each of these patterns is one class, or an id, as a whole.
_BANNERS = re.compile(
    r"(?:[\w-]*[-_])?(?:cookies?|gdpr|dsgvo|ccpa|consent|privacy)[-_]*(?:banner|bar|consent|notice|popup|modal|overlay|law|"
    r"message|dialog|info|hint|layer|alert|wall|disclaimer|warning|box|prompt|manager|container|wrapper|root|sdk|settings|"
    r"toast|footer|notification|acceptance|control|gate|choices?|preferences|window)(?:[-_][\w-]*)?|"
    r"(?:[\w-]*[-_])?(?:onetrust|ot-sdk|cookiebot|cookiescript|cybotcookie\w*|cky|cmplz|borlabs\w*|usercentrics|didomi|qc-cmp2?|"
    r"truste|trustarc|iubenda|osano|klaro|tarteaucitron\w*|moove-gdpr\w*|moove_gdpr\w*|evidon|cookieconsent|cc-window|"
    r"cc-banner|cookies-eu|eu-cookie)(?:[-_][\w-]*)?",
    re.IGNORECASE,
)
# Fields of forms that ask readers for something: no part of the content.
_ASKING = "input[type=email], input[type=password], input[type=search], textarea"
_NOTICES = re.compile(
    r"cookie|consent|gdpr|dsgvo|privacy|banner|notice|pop-?up|overlay|snackbar|toast|\b(?:fixed|sticky)\b",
    re.IGNORECASE,
)
_CONSENT = re.compile(
    r"\b(?:uses?|using|verwende[nt]|nutz(?:en|t)|setz(?:en|t)|utilis\w+|usamos|utiliza\w*|utilizz\w+|gebruik\w*|accept\w*|"
    r"akzept\w*|consent\w*)\b.{0,80}?\bcookies?\b|\bcookies?\b.{0,80}?\b(?:accept|agree|consent|akzept|zustimm|einverstanden|"
    r"ablehn|reject|essential|notwendig|necessary|optional)",
    re.IGNORECASE | re.DOTALL,
)
MAX_NOTICE_CHARACTERS, MAX_NOTICE_SHARE = 1500, 0.9
# A part without a telling name, near the root of the page.
MAX_PLAIN_NOTICE_CHARACTERS, MAX_PLAIN_NOTICE_DEPTH = 400, 4
_FURNITURE = re.compile(
    r"(?:[\w-]*[-_])?(?:bread-?crumbs?|pagination|pager|skip-?(?:link|nav|to-content|to-main)s?|related-?(?:posts?|articles?|"
    r"links?|content|stories|topics|reading|items|products)|recommended|recommendations|social-?(?:share|sharing|links?|"
    r"media|buttons?|icons?|bar)|share-?(?:buttons?|bar|links?|tools?|icons?|this)|sharing|sharedaddy|newsletter\w*|"
    r"newsletter-[\w-]+|subscribe-?(?:box|form)?|advert\w*|ad-?(?:slot|banner|container|wrapper|unit|box)s?|ads|sponsored|"
    r"taboola|outbrain|popup|modal|toast|back-?to-?top|scroll-?(?:to-?)?top|edit-?page(?:-?link)?|edit-?this-?page|mw-editsection|mw-jump-link|"
    r"headerlink|hash-?link|anchorjs-link|sr-only|visually-?hidden|screen-?reader(?:-?text|-?only)?|print-only|"
    r"(?:lang|language)-?(?:switcher|selector|switch|picker)|search-?(?:form|box|bar)|login-?form|copy-?(?:btn|button|code))",
    re.IGNORECASE,
)
_FRAME = re.compile(
    r"(?:[\w-]*[-_])?(?:side-?bar|nav-?bar|navigation|nav|menu|footer|masthead|colophon|top-?bar|toc|table-of-contents|"
    r"related|social|share|subscribe|promo|sign-?up|widgets?)(?:[-_](?:area|wrapper|wrap|container|inner|list|menu|column|"
    r"left|right|top|bottom|main|primary|secondary|links|tree|widgets?|section|bar|content))?",
    re.IGNORECASE,
)
_HEADERS = re.compile(r"(?:[\w-]*[-_])?header(?:[-_](?:wrapper|container|inner|top|bar|area))?", re.IGNORECASE)
_COMMENTS = re.compile(
    r"(?:[\w-]*[-_])?(?:comments?|kommentare?|commentaires?|comentarios|commenti|disqus(?:[-_]thread)?|giscus|utterances|"
    r"isso-thread|respond|remark42|hyvor-talk\w*)(?:[-_]?(?:list|area|section|threads?|wrapper|wrap|container|block|holder|"
    r"box|form|respond|embed|region|template|tree|comments|closed|links?|count|pagination|navigation|outer|inner|app|root|"
    r"module|feed|body|content|item|text|post))?|discussion-comments",
    re.IGNORECASE,
)
_INVISIBLE = re.compile(r"(?:is-|u-)?hidden|d-none|hide|display-none|invisible|js-hidden|uk-hidden", re.IGNORECASE)
_SHOWN_SOMETIMES = re.compile(
    r"(?:^|\s)(?:[a-z0-9-]+:(?:block|flex|grid|inline\S*|table\S*|contents|visible)|d-(?:sm|md|lg|xl|xxl)-\S+)(?=\s|$)"
)
_NOTES = re.compile(r"note|tip|hint|warning|caution|danger|important|info|admonition|callout|example", re.IGNORECASE)
_THREADS = re.compile(r'"@type"\s*:\s*(?:\[[^\]]*)?"(?:DiscussionForumPosting|QAPage)"')
# Of the text of a page: an element with more of it is the page, whatever its name.
MAX_SHARE = 0.5
# A page with less text outside of its comments consists of them.
MIN_CONTENT_CHARACTERS = 140
# A form with more text holds a part of the page.
MAX_FORM_CHARACTERS = 200
MIN_LINK_SHARE = 0.6

MAX_RULES = 500

_Test = Callable[[LexborNode, bool], bool]


def clean_text(page: LexborHTMLParser) -> LexborNode | None:
    """Remove hidden text and navigation from a chapter or a letter, all of which is content; return the body."""
    body = page.body
    if body is not None:
        styled = hidden_by_style(page)
        _drop(matches(body, _is_void))
        _drop_hidden(body, styled)
        _drop(matches(body, lambda node, _: node.tag == "nav"))
    return body


def clean_page(page: LexborHTMLParser) -> LexborNode | None:
    """Remove these parts from the tree; return the body, None without one."""
    body = page.body
    if body is None:
        return None
    is_thread = any(_THREADS.search(node.text()) for node in page.css('script[type="application/ld+json"]'))
    styled = hidden_by_style(page)
    asking = {node.mem_id for field in page.css(_ASKING) if (node := _form_of(field)) is not None}
    _drop(matches(body, _is_void))
    _drop_hidden(body, styled)
    characters = length(body)
    _drop(matches(body, lambda node, inside: _is_furniture(node, inside, characters, asking)))
    if not is_thread:
        _drop_comments(body)
    return body


def length(node: LexborNode | None) -> int:
    """Return the number of characters of the element's text, with single blanks."""
    return 0 if node is None else len(" ".join(node.text(separator=" ").split()))


def matches(body: LexborNode, is_match: _Test) -> list[LexborNode]:
    """Return the outermost elements that match; the test also gets True inside of the page's content."""
    matches: list[LexborNode] = []
    stack: list[tuple[LexborNode, bool]] = [(child, False) for child in body.iter()]
    while stack:
        node, is_inside = stack.pop()
        if is_match(node, is_inside):
            matches.append(node)
        else:
            is_inside = is_inside or node.tag in ("main", "article") or node.attributes.get("role") == "main"
            stack.extend((child, is_inside) for child in node.iter())
    return matches


def _drop(nodes: list[LexborNode]) -> None:
    for node in nodes:
        node.decompose()


def _is_void(node: LexborNode, is_inside: bool) -> bool:
    tag = node.tag or ""
    if tag == "button":  # the title of a part that opens is a button
        ancestors = (node.parent, node.parent.parent if node.parent is not None else None)
        return not any(above is not None and above.tag in _TITLES for above in ancestors)
    return tag in _VOID or tag.startswith("!") or tag == "-comment"


def _drop_hidden(body: LexborNode, styled: set[int]) -> None:
    """Remove what browsers do not show, unless that is the whole page, which its scripts then show."""
    characters = length(body)
    hidden = matches(body, lambda node, _: node.mem_id in styled or _is_hidden(node))
    if sum(map(length, hidden)) < characters or not characters:
        _drop(hidden)


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    if "hidden" in attributes and attributes["hidden"] != "until-found":
        return True
    if attributes.get("aria-hidden") == "true" or _HIDING.search(attributes.get("style") or ""):
        return True
    names = attributes.get("class") or ""
    return any(map(_INVISIBLE.fullmatch, names.split())) and not _SHOWN_SOMETIMES.search(names)


def _form_of(field: LexborNode) -> LexborNode | None:
    above = field.parent
    while above is not None and above.tag != "form":
        above = above.parent
    return above


def _is_furniture(node: LexborNode, is_inside: bool, characters: int, asking: set[int]) -> bool:
    attributes, tag = node.attributes, node.tag or ""
    names = [*(attributes.get("class") or "").split(), *(attributes.get("id") or "").split()]
    role = attributes.get("role") or ""
    if tag in ("main", "article", "h1") or role == "main":
        return False
    if tag == "form" and (node.mem_id in asking or not is_inside):
        return length(node) < min(MAX_FORM_CHARACTERS, MAX_SHARE * characters)
    if tag == "label" and _form_of(node) is not None:
        return True
    if tag == "header" or role == "banner":
        named = not is_inside and node.css_first("h1") is None
    elif tag in _NAVIGATION or role in _ROLES:
        named = not (is_inside and _is_part_of_content(node, tag, names))
    else:
        named = any(_BANNERS.fullmatch(name) or _FURNITURE.fullmatch(name) for name in names)
        if not named and any(map(_HEADERS.fullmatch, names)):
            named = not is_inside and node.css_first("h1, h2") is None
        if not named and (frames := [name for name in names if _FRAME.fullmatch(name)]):
            is_menu = all("menu" in name.lower() for name in frames)  # also that of a restaurant
            named = not (is_inside or is_menu) or _link_share(node) >= MIN_LINK_SHARE
        if not named and _is_notice(node, " ".join([*names, attributes.get("style") or ""]), is_inside):
            return length(node) < MAX_NOTICE_SHARE * characters
    if not named or node.css_first("main, [role=main]") is not None:
        return False
    return tag == "nav" or length(node) <= MAX_SHARE * characters or any(map(_BANNERS.fullmatch, names))


def _is_part_of_content(node: LexborNode, tag: str, names: list[str]) -> bool:
    """Return True for a note of a manual, or the source below a quotation."""
    if tag == "aside":
        return any(map(_NOTES.search, names))
    return tag == "footer" and node.parent is not None and node.parent.tag in ("blockquote", "figure")


def _is_notice(node: LexborNode, hints: str, is_inside: bool) -> bool:
    """Return True for a text that asks for consent to cookies."""
    if _NOTICES.search(hints):
        limit = MAX_NOTICE_CHARACTERS
    elif not is_inside and node.tag in ("div", "section") and _depth(node) <= MAX_PLAIN_NOTICE_DEPTH:
        limit = MAX_PLAIN_NOTICE_CHARACTERS
    else:
        return False
    return length(node) < limit and _CONSENT.search(node.text(separator=" ")) is not None


def _depth(node: LexborNode) -> int:
    """Return the number of elements between the node and the body; at most one more than matters."""
    depth, above = 0, node.parent
    while above is not None and above.tag != "body" and depth <= MAX_PLAIN_NOTICE_DEPTH:
        depth, above = depth + 1, above.parent
    return depth


def _link_share(node: LexborNode) -> float:
    return sum(map(length, node.css("a"))) / max(1, length(node))


def _drop_comments(body: LexborNode) -> None:
    """Remove what readers wrote below the page, unless the page consists of it, as in a forum."""
    comments = matches(body, lambda node, _: _is_comments(node))
    if not comments:
        return
    links = sum(map(length, body.css("a"))) - sum(length(link) for part in comments for link in part.css("a"))
    inside = {node.mem_id for part in comments for node in part.css("p, pre")}
    has_paragraph = any(length(node) for node in body.css("p, pre") if node.mem_id not in inside)
    if has_paragraph or length(body) - sum(map(length, comments)) - links >= MIN_CONTENT_CHARACTERS:
        _drop(comments)


def _is_comments(node: LexborNode) -> bool:
    attributes = node.attributes
    if node.tag in ("main", "code", "pre", "span", "a", "body"):
        return False
    names = [*(attributes.get("class") or "").split(), *(attributes.get("id") or "").split()]
    return any(map(_COMMENTS.fullmatch, names)) and node.css_first("main, h1") is None


def hidden_by_style(page: LexborHTMLParser) -> set[int]:
    """Return the ids of the elements that the page's own style sheets do not display."""
    winners: dict[int, tuple[tuple[int, int, int], int, bool]] = {}
    for order, (selector, is_none) in enumerate(_display_rules(page)):
        try:
            nodes = page.css(selector)
        except (SelectolaxError, ValueError):
            continue
        weight = (selector.count("#"), selector.count("."), len(re.findall(r"(?:^|[\s>+~])[a-z]", selector)))
        for node in nodes:
            rule = (weight, order, is_none)
            winners[node.mem_id] = max(winners.get(node.mem_id, rule), rule)
    return {mem_id for mem_id, (_, _, is_none) in winners.items() if is_none}


def _display_rules(page: LexborHTMLParser) -> Iterator[tuple[str, bool]]:
    """Yield simple selectors with True if they hide their elements; rules for other media are left out."""
    count = 0
    for sheet in page.css("style"):
        if "print" in (sheet.attributes.get("media") or ""):
            continue
        text = re.sub(r"/\*.*?\*/", "", sheet.text(), flags=re.DOTALL)
        text = re.sub(r"@[^{;]*(?:;|\{(?:[^{}]*\{[^{}]*\})*[^{}]*\})", "", text)
        for selectors, declarations in re.findall(r"([^{}]+)\{([^{}]*)\}", text):
            match = re.search(r"(?:^|;)\s*display\s*:\s*([a-z-]+)", declarations, re.IGNORECASE)
            for selector in selectors.split(",") if match else ():
                simple = selector.strip()
                if re.fullmatch(r"[\w.#\s>-]+", simple) and count < MAX_RULES:
                    count += 1
                    yield simple, match is not None and match.group(1).lower() == "none"
