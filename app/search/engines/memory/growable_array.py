"""A numpy array that grows at its end by doubling, so that appending a row needs no copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class GrowableArray:
    """`view` is the used part; it stays valid but not current while the array grows."""

    def __init__(self, dtype: npt.DTypeLike, width: int | None = None) -> None:
        self._columns: tuple[int, ...] = () if width is None else (width,)
        self._rows: npt.NDArray[Any] = np.zeros((64, *self._columns), dtype)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    @property
    def view(self) -> npt.NDArray[Any]:
        return self._rows[: self._used]

    def append(self, value: object) -> None:
        self._reserve(1)
        self._rows[self._used] = value
        self._used += 1

    def extend(self, values: npt.ArrayLike) -> None:
        rows = np.asarray(values, self._rows.dtype).reshape(-1, *self._columns)
        self._reserve(len(rows))
        self._rows[self._used : self._used + len(rows)] = rows
        self._used += len(rows)

    def _reserve(self, more: int) -> None:
        needed = self._used + more
        if needed > len(self._rows):
            bigger = np.zeros((max(needed, 2 * len(self._rows)), *self._columns), self._rows.dtype)
            bigger[: self._used] = self.view
            self._rows = bigger
