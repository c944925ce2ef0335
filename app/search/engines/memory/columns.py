"""Columns of an in-memory index: short texts as small numbers, with counts of their values among matching documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from app.search.engines.base import FACET_VALUES, Facet
from app.search.engines.memory.growable_array import GrowableArray
from app.search.text.analyzer import region_free

NO_DATE = float("-inf")

Bools = npt.NDArray[np.bool_]


class CodedColumn:
    """A column of short texts as small numbers."""

    def __init__(self) -> None:
        self._codes: dict[str | None, int] = {}
        self._column = GrowableArray(np.int32)

    def append(self, value: str | None) -> None:
        self._column.append(self._codes.setdefault(value, len(self._codes)))

    def equals(self, value: str) -> Bools:
        matched: Bools = self._column.view == self._codes.get(value, -1)
        return matched

    def within(self, site: str) -> Bools:
        """Return True where the value is this domain, or one below it."""
        return self._where(lambda value: is_within(value, site))

    def speaks(self, language: str) -> Bools:
        """Return True where the value is this language; a language without region matches all its regions."""
        return self._where(lambda value: value == language or region_free(value) == language)

    def count(self, matched: Bools) -> list[tuple[str, int]]:
        """Count each value where `matched` is true, the commonest first."""
        counted = np.bincount(self._column.view[matched], minlength=len(self._codes)).tolist()
        return commonest((value, counted[code]) for value, code in self._codes.items() if value is not None)

    def _where(self, holds: Callable[[str], bool]) -> Bools:
        codes = [code for value, code in self._codes.items() if value is not None and holds(value)]
        matched: Bools = np.isin(self._column.view, codes)
        return matched


class Facets:
    """Counts of values over columns of one index."""

    def __init__(
        self, columns: Mapping[str, CodedColumn], collection: GrowableArray, tagged: Mapping[str, list[int]]
    ) -> None:
        self._columns, self._collection, self._tagged = columns, collection, tagged

    def count(self, facets: Sequence[Facet], matched: Bools) -> dict[Facet, list[tuple[str, int]]]:
        return {facet: self._count(facet, matched) for facet in facets}

    def _count(self, facet: Facet, matched: Bools) -> list[tuple[str, int]]:
        if facet == "tags":
            return commonest((tag, int(matched[slots].sum())) for tag, slots in self._tagged.items())
        if facet == "collection":
            values, counts = np.unique(self._collection.view[matched], return_counts=True)
            pairs = zip(values.tolist(), counts.tolist(), strict=True)
            return commonest((str(value), count) for value, count in pairs if value >= 0)
        return self._columns[facet].count(matched)


def is_within(domain: str, site: str) -> bool:
    """Return True if a domain, with or without port, is the site or below it."""
    host, suffix = domain.casefold(), site.casefold()
    return any(name == suffix or name.endswith(f".{suffix}") for name in (host, host.rpartition(":")[0] or host))


def commonest(counted: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the values that occur, the commonest first, then by name, up to the limit of a facet."""
    return sorted(((value, count) for value, count in counted if count), key=lambda item: (-item[1], item[0]))[
        :FACET_VALUES
    ]
