"""Columns of an index in memory: short texts as small numbers, and how often each occurs among found documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from app.search.engines.base import FACET_VALUES, Facet
from app.search.engines.memory.growable_array import Growing
from app.search.text.analyzer import region_free

NO_DATE = float("-inf")

Bools = npt.NDArray[np.bool_]


class Coded:
    """A column of short texts as small numbers."""

    def __init__(self) -> None:
        self._codes: dict[str | None, int] = {}
        self._column = Growing(np.int32)

    def append(self, value: str | None) -> None:
        self._column.append(self._codes.setdefault(value, len(self._codes)))

    def equals(self, value: str) -> Bools:
        found: Bools = self._column.view == self._codes.get(value, -1)
        return found

    def within(self, site: str) -> Bools:
        """Where the value is this domain, or one below it."""
        return self._where(lambda value: is_within(value, site))

    def speaks(self, language: str) -> Bools:
        """Where the value is this language; one without a region is each of its regions."""
        return self._where(lambda value: value == language or region_free(value) == language)

    def count(self, found: Bools) -> list[tuple[str, int]]:
        """How often each value occurs where `found` is true, the commonest first."""
        counted = np.bincount(self._column.view[found], minlength=len(self._codes)).tolist()
        return commonest((value, counted[code]) for value, code in self._codes.items() if value is not None)

    def _where(self, holds: Callable[[str], bool]) -> Bools:
        codes = [code for value, code in self._codes.items() if value is not None and holds(value)]
        found: Bools = np.isin(self._column.view, codes)
        return found


class Facets:
    """Counts of values over columns of one index."""

    def __init__(self, columns: Mapping[str, Coded], collection: Growing, tagged: Mapping[str, list[int]]) -> None:
        self._columns, self._collection, self._tagged = columns, collection, tagged

    def count(self, wanted: Sequence[Facet], found: Bools) -> dict[Facet, list[tuple[str, int]]]:
        return {facet: self._count(facet, found) for facet in wanted}

    def _count(self, facet: Facet, found: Bools) -> list[tuple[str, int]]:
        if facet == "tags":
            return commonest((tag, int(found[slots].sum())) for tag, slots in self._tagged.items())
        if facet == "collection":
            values, counts = np.unique(self._collection.view[found], return_counts=True)
            pairs = zip(values.tolist(), counts.tolist(), strict=True)
            return commonest((str(value), count) for value, count in pairs if value >= 0)
        return self._columns[facet].count(found)


def is_within(domain: str, site: str) -> bool:
    """Whether a domain, maybe with a port, is the site or below it."""
    host, wanted = domain.casefold(), site.casefold()
    return any(name == wanted or name.endswith(f".{wanted}") for name in (host, host.rpartition(":")[0] or host))


def commonest(counted: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """The values that occur, the commonest first, then by name; no more than a facet shows."""
    return sorted(((value, count) for value, count in counted if count), key=lambda one: (-one[1], one[0]))[
        :FACET_VALUES
    ]
