"""Depth of HTML and its attributes, found by one pass over the tags: parsers take quadratic time in both."""

from __future__ import annotations

import re
from collections import Counter

from app.core.errors import InvalidInput

# Browsers stop nesting at 512. A parser takes a tenth of a second for this depth, and 25 s for twentyfold.
MAX_DEPTH = 10_000
# Formatting elements without an end tag: a parser opens all of them again in each block.
MAX_REOPENED = 2_000
# Parsers compare each attribute with all before it.
MAX_ATTRIBUTES = 5_000
# Lexbor looks at all options of a list for each new one.
MAX_OPTIONS = 20_000

_TAG = re.compile(r"<(?:!--|(/?)([a-z][^\s/>]*))")
_TAG_END = re.compile(r"=\s*([\"'])|(/?)>")
_QUOTED = re.compile(r"=\s*(?:\"[^\"]*\"?|'[^']*'?)")
_ATTRIBUTE = re.compile(r"[^\s/=]+")
# Unclosed elements above an element that a start tag ends; a parser looks further, and a page that needs it is broken.
_MAX_LOOK = 50


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VOID = _names(
    "area base basefont bgsound br col command embed frame hr image img input keygen link meta param source track wbr"
)
# Their content is text up to the end tag.
_RAW = _names("iframe noembed noframes plaintext script style textarea title xmp")
# Elements of SVG and MathML: `/>` closes them. HTML may lie in some, and other HTML ends them.
_FOREIGN = _names("svg math")
_HOLDS_HTML = _names("foreignobject desc title annotation-xml mi mo mn ms mtext")
_ENDS_FOREIGN = _names(
    "b big blockquote body br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 head hr i img li listing menu meta "
    "nobr ol p pre ruby s small span strong strike sub sup table tt u ul var"
)
_INLINE = _names(
    "a abbr b big cite code em font i kbd label mark nobr q s samp small span strike strong sub sup tt u var"
)
# A parser opens these again in each block until their end tag; of equal ones, the last three.
_FORMATTING = _names("a b big code em font i nobr s small strike strong tt u")
_MAX_EQUAL = 3
# Elements that are blocks and end an open paragraph.
_BLOCKS = _names(
    "address article aside blockquote center details dialog dir div dl fieldset figcaption figure footer form header "
    "hr main menu nav ol p pre section summary table ul"
)
_HEADINGS = _names("h1 h2 h3 h4 h5 h6")
_ITEMS = _names("dd dt li")
_CELLS = _names("td th")
_ROWS = _CELLS | {"tr"}
_TABLE_PARTS = _names("caption colgroup tbody tfoot thead")
_RUBY = _names("rb rp rt rtc")
# A start tag of the key ends an open element of the values, unless another element than inline ones lies in between.
_ENDS: dict[str, frozenset[str]] = {
    **dict.fromkeys(_BLOCKS, _names("p")),
    **dict.fromkeys(_HEADINGS, _HEADINGS | {"p"}),
    **dict.fromkeys(_ITEMS, _ITEMS | {"p"}),
    **dict.fromkeys(_ROWS, _ROWS | {"p"}),
    **dict.fromkeys(_CELLS, _CELLS | {"p"}),
    **dict.fromkeys(_TABLE_PARTS, _TABLE_PARTS | _ROWS | {"p"}),
    **dict.fromkeys(_RUBY, _RUBY),
    **dict.fromkeys(("option", "optgroup"), _names("option")),
    **{name: _names(name) for name in ("a", "button", "nobr")},
    "body": _names("head"),
}


def check_depth(html: str) -> str:
    """Return the HTML. Raises InvalidInput for more nested elements, attributes or options than the limits."""
    reason = _find_fault(html.lower()) if len(html) > MAX_REOPENED else None
    if reason is not None:
        raise InvalidInput(reason, code="broken_document")
    return html


class _OpenElements:
    """The elements that are open at a place of the page."""

    def __init__(self) -> None:
        self._stack: list[tuple[str, bool]] = []
        self._counts: dict[str, int] = {}
        self._formatting: dict[str, list[str]] = {}
        self._equal: Counter[str] = Counter()
        self.reopened = 0

    def __len__(self) -> int:
        return len(self._stack)

    @property
    def is_foreign(self) -> bool:
        """True inside of SVG or MathML."""
        return bool(self._stack) and self._stack[-1][1] and self._stack[-1][0] not in _HOLDS_HTML

    def start(self, name: str, tag: str) -> None:
        """Open an element; `tag` is the text of its start tag."""
        if name in _FORMATTING:
            if name in ("a", "nobr"):
                self._end_formatting(name)
            self._formatting.setdefault(name, []).append(tag)
            self._equal[tag] += 1
            self.reopened += self._equal[tag] <= _MAX_EQUAL
        if self.is_foreign and name in _ENDS_FOREIGN:
            while self.is_foreign:
                self._pop()
        ends = _ENDS.get(name)
        if ends:
            self._end_any(ends)
        self._stack.append((name, name in _FOREIGN or self.is_foreign))
        self._counts[name] = self._counts.get(name, 0) + 1

    def end(self, name: str) -> None:
        """Close the innermost element of this name and all in it, if one is open."""
        self._end_formatting(name)
        if self._counts.get(name):
            while self._pop() != name:
                pass

    def _end_formatting(self, name: str) -> None:
        if self._formatting.get(name):
            tag = self._formatting[name].pop()
            self.reopened -= self._equal[tag] <= _MAX_EQUAL
            self._equal[tag] -= 1

    def _end_any(self, names: frozenset[str]) -> None:
        """Close the innermost element of these names if only inline elements are open in it, and so on."""
        passed = _INLINE - names
        while True:
            above = 1
            while above < min(len(self._stack), _MAX_LOOK) and self._stack[-above][0] in passed:
                above += 1
            if above > len(self._stack) or self._stack[-above][0] not in names:
                return
            for _ in range(above):
                self._pop()

    def _pop(self) -> str:
        name = self._stack.pop()[0]
        self._counts[name] -= 1
        return name


def _find_fault(text: str) -> str | None:
    """Return the first fault of the text, in lower case. Takes time in proportion to the length."""
    elements = _OpenElements()
    at = options = 0
    while match := _TAG.search(text, at):
        begin, at, name = match.start(), match.end(), match[2]
        if name is None:
            at = _after(text, "-->", at)
            continue
        at, is_closed = _end_of_tag(text, at)
        if (
            at - begin > 2 * MAX_ATTRIBUTES
            and len(_ATTRIBUTE.findall(_QUOTED.sub("", text[begin:at]))) > MAX_ATTRIBUTES
        ):
            return f"an element has more than {MAX_ATTRIBUTES:,} attributes"
        if match[1]:
            elements.end(name)
        elif name in _RAW and not elements.is_foreign:
            at = _after(text, f"</{name}", at)
        elif not (name in _VOID or (is_closed and elements.is_foreign and name not in _ENDS_FOREIGN)):
            elements.start(name, text[begin:at])
            options = 0 if name == "select" else options + (name == "option")
            if options > MAX_OPTIONS:
                return f"a list has more than {MAX_OPTIONS:,} options"
            if len(elements) > MAX_DEPTH or elements.reopened > MAX_REOPENED:
                return (
                    f"elements are nested more than {MAX_DEPTH if len(elements) > MAX_DEPTH else MAX_REOPENED:,} deep"
                )
    return None


def _count_attributes(tag: str) -> int:
    return len(_ATTRIBUTE.findall(_QUOTED.sub("", tag)))


def _end_of_tag(text: str, at: int) -> tuple[int, bool]:
    """Return the position after the tag's `>`, and True if a slash precedes it. Quoted values may hold `>`."""
    while match := _TAG_END.search(text, at):
        if match[1] is None:
            return match.end(), bool(match[2])
        at = _after(text, match[1], match.end())
    return len(text), False


def _after(text: str, end: str, at: int) -> int:
    """Return the position after the next `end`, or the length of the text."""
    position = text.find(end, at)
    return len(text) if position < 0 else position + len(end)
