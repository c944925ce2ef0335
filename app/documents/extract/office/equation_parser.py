"""Equations of Office files (OMML) as text in one line: a^2, (a+b)/c, √(x), ∑_(i=1)^n."""

from __future__ import annotations

from collections.abc import Callable

from lxml import etree

from app.documents.extract.office.ooxml_parser import attribute, child, name_of

_PROPERTIES = frozenset({"ctrlPr", "rPr"})


def equation_text(element: etree._Element) -> str:
    """Return the equation in one line."""
    return " ".join(_all(element).split())


def _all(element: etree._Element | None) -> str:
    return "" if element is None else "".join(map(_one, element))


def _one(element: etree._Element) -> str:
    name = name_of(element)
    if name == "t":
        return element.text or ""
    if name.endswith("Pr") or name in _PROPERTIES:
        return ""
    writer = _WRITERS.get(name)
    return writer(element) if writer is not None else _all(element)


def _part(element: etree._Element, name: str) -> str:
    return _all(child(element, name)).strip()


def _grouped(text: str) -> str:
    """Return the text in brackets if it is more than one sign or word."""
    return text if len(text) < 2 or text.isalnum() else f"({text})"


def _property(element: etree._Element, name: str, default: str) -> str:
    value = attribute(child(element, f"{name_of(element)}Pr", name), "val")
    return default if value is None else value


def _script(element: etree._Element) -> str:
    below, above = _part(element, "sub"), _part(element, "sup")
    scripts = (f"_{_grouped(below)}" if below else "") + (f"^{_grouped(above)}" if above else "")
    base = _grouped(_part(element, "e"))
    return f"{scripts}{base}" if name_of(element) == "sPre" else f"{base}{scripts}"


def _fraction(element: etree._Element) -> str:
    return f"{_grouped(_part(element, 'num'))}/{_grouped(_part(element, 'den'))}"


def _root(element: etree._Element) -> str:
    degree = _part(element, "deg")
    return f"{degree and f'{degree}'}√({_part(element, 'e')})"


def _sum(element: etree._Element) -> str:
    below, above = _part(element, "sub"), _part(element, "sup")
    limits = (f"_{_grouped(below)}" if below else "") + (f"^{_grouped(above)}" if above else "")
    return f"{_property(element, 'chr', '∫')}{limits} {_part(element, 'e')}"


def _delimited(element: etree._Element) -> str:
    parts = [_all(item).strip() for item in element if name_of(item) == "e"]
    separator = _property(element, "sepChr", "|")
    return f"{_property(element, 'begChr', '(')}{separator.join(parts)}{_property(element, 'endChr', ')')}"


def _matrix(element: etree._Element) -> str:
    rows = [[_all(cell).strip() for cell in row if name_of(cell) == "e"] for row in element if name_of(row) == "mr"]
    return "; ".join(", ".join(row) for row in rows)


def _lines(element: etree._Element) -> str:
    return "; ".join(_all(item).strip() for item in element if name_of(item) == "e")


def _function(element: etree._Element) -> str:
    return f"{_part(element, 'fName')}({_part(element, 'e').removeprefix('(').removesuffix(')')})"


def _limit(element: etree._Element) -> str:
    sign = "_" if name_of(element) == "limLow" else "^"
    return f"{_part(element, 'e')}{sign}{_grouped(_part(element, 'lim'))} "


def _accent(element: etree._Element) -> str:
    return f"{_part(element, 'e')}{_property(element, 'chr', '̂')}"


_WRITERS: dict[str, Callable[[etree._Element], str]] = {
    "f": _fraction, "rad": _root, "nary": _sum, "d": _delimited, "m": _matrix, "eqArr": _lines, "func": _function,
    "limLow": _limit, "limUpp": _limit, "acc": _accent, "sSup": _script, "sSub": _script, "sSubSup": _script,
    "sPre": _script,
}  # fmt: skip
