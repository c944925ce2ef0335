"""Okapi BM25 with scores above 0, over numpy postings that support single additions and removals.

A document is its packed terms (analyzer.pack) and gets a slot, never reused. Postings are one sorted base and a small
dictionary of later additions, which is merged into the base when it has grown to a tenth of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from app.search.engines.memory.growable_array import GrowableArray
from app.search.text.analyzer import unpack

# Share of Lucene's positive rarity that a word in half of the documents or more keeps; Okapi's own is below 0 there.
# Lucene's rarity for all words ranks one of the two test collections worse.
COMMON_WEIGHT = 0.1

Slots = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Bm25:
    """Scores the documents that are not removed. A term in every document still weighs more than nothing."""

    def __init__(self, *, k1: float = 1.5, b: float = 0.75, min_merge: int = 50_000) -> None:
        self.k1, self.b = k1, b
        self._min_merge = min_merge
        self.corpus_size = 0
        self._total_length = 0
        self._terms: list[bytes | None] = []  # by slot; None for a removed document
        self._length = GrowableArray(np.float64)
        self._alive = GrowableArray(np.bool_)
        self._vocabulary = np.zeros(0, np.uint32)
        self._bounds = np.zeros(1, np.int64)
        self._slots = np.zeros(0, np.int32)
        self._counts = np.zeros(0, np.uint16)
        # Live documents with each term: for terms of the vocabulary, and for terms not in it yet.
        self._df = np.zeros(0, np.int64)
        self._new_df: Counter[int] = Counter()
        self._new: dict[int, list[tuple[int, int]]] = {}
        self._new_pairs = 0
        self._norm: Floats | None = None

    @property
    def avgdl(self) -> float:
        return self._total_length / self.corpus_size if self.corpus_size else 0.0

    @property
    def _worth_a_merge(self) -> int:
        """Return the number of new (term, document) pairs from which sorting the base again pays."""
        return max(self._min_merge, len(self._slots) // 10)

    @property
    def slots(self) -> int:
        """Return the highest slot in use plus one."""
        return len(self._terms)

    @property
    def alive(self) -> Bools:
        return self._alive.view

    def terms_of(self, slot: int) -> bytes | None:
        return self._terms[slot]

    def postings_of(self, slot: int) -> int:
        """Return the number of postings of the document's terms."""
        hashes = unpack(self._terms[slot] or b"")[0].tolist()
        return sum(any(slot in slots for slots, _ in self._postings(term)) for term in hashes)

    def add(self, packed: bytes) -> int:
        """Add a document and return its slot."""
        slot = self._append(packed)
        hashes, counts = unpack(packed)
        self._count(hashes, +1)
        for term, count in zip(hashes.tolist(), counts.tolist(), strict=True):
            self._new.setdefault(term, []).append((slot, count))
        self._new_pairs += len(hashes)
        if self._new_pairs > self._worth_a_merge:
            self.merge()
        return slot

    def add_many(self, documents: Sequence[bytes]) -> range:
        """Add many documents and return their slots; merges them into the base at once if that pays."""
        first = self.slots
        if sum(map(len, documents)) // 6 <= self._worth_a_merge:
            for packed in documents:
                self.add(packed)
            return range(first, self.slots)
        parts = [(self._append(packed), *unpack(packed)) for packed in documents]
        terms = np.concatenate([hashes for _, hashes, _ in parts])
        counts = np.concatenate([counts for _, _, counts in parts])
        slots = np.repeat(np.array([slot for slot, _, _ in parts], np.int32), [len(hashes) for _, hashes, _ in parts])
        self.merge(terms, slots, counts)
        return range(first, self.slots)

    def remove(self, slot: int) -> None:
        """Remove a document; its slot stays empty. Repeatable."""
        packed = self._terms[slot]
        if packed is None:
            return
        self._terms[slot] = None
        self._alive.view[slot] = False
        self.corpus_size -= 1
        self._total_length -= int(self._length.view[slot])
        self._count(unpack(packed)[0], -1)

    def match(self, weights: Mapping[int, float]) -> tuple[Floats, Bools]:
        """Return a score for each slot, above 0 exactly where its document has a term of the query, and these slots."""
        scores, matched = np.zeros(self.slots), np.zeros(self.slots, np.bool_)
        if self.corpus_size == 0:
            return scores, matched
        norm = self._norms()
        for term, weight in weights.items():
            idf = self.weight(term)
            for slots, counts in self._postings(term) if idf else ():
                frequency = np.maximum(counts.astype(np.float64), 1.0)
                scores[slots] += weight * idf * (frequency * (self.k1 + 1) / (frequency + norm[slots]))
                matched[slots] = True
        matched &= self.alive
        scores[~self.alive] = 0.0
        return scores, matched

    def having(self, terms: Iterable[int]) -> Bools:
        """Return the slots whose document has one of the terms."""
        return self.match(dict.fromkeys(terms, 1.0))[1]

    def weight(self, term: int) -> float:
        """Return the term's inverse document frequency, which is above 0; 0 for an unknown term."""
        df = self.document_frequency(term)
        if not df:
            return 0.0
        odds = (self.corpus_size - df + 0.5) / (df + 0.5)
        return max(math.log(odds), COMMON_WEIGHT * math.log1p(odds))

    def document_frequency(self, term: int) -> int:
        at = self._place(term)
        return self._new_df[term] if at is None else int(self._df[at])

    def _postings(self, term: int) -> Iterable[tuple[Slots, npt.NDArray[np.integer]]]:
        at = self._place(term)
        if at is not None:
            start, end = self._bounds[at], self._bounds[at + 1]
            yield self._slots[start:end], self._counts[start:end]
        pairs = self._new.get(term)
        if pairs:
            recent = np.array(pairs, np.int32)
            yield recent[:, 0], recent[:, 1]

    def _place(self, term: int) -> int | None:
        """Return the term's index in the vocabulary, None if it is absent."""
        # The vocabulary's own type: numpy would convert the whole array to compare it with a Python number.
        at = int(np.searchsorted(self._vocabulary, np.uint32(term)))
        return at if at < len(self._vocabulary) and int(self._vocabulary[at]) == term else None

    def _norms(self) -> Floats:
        if self._norm is None or len(self._norm) != self.slots:
            average = self.avgdl or 1.0
            self._norm = self.k1 * (1 - self.b + self.b * self._length.view / average)
        return self._norm

    def _append(self, packed: bytes) -> int:
        length = int(unpack(packed)[1].sum(dtype=np.int64))
        self._terms.append(packed)
        self._length.append(length)
        self._alive.append(True)
        self.corpus_size += 1
        self._total_length += length
        self._norm = None
        return len(self._terms) - 1

    def _count(self, hashes: npt.NDArray[np.uint32], step: int) -> None:
        """Add `step` documents to the count of each term."""
        self._norm = None
        at = np.searchsorted(self._vocabulary, hashes)
        known = np.zeros(len(hashes), np.bool_)
        inside = at < len(self._vocabulary)
        known[inside] = self._vocabulary[at[inside]] == hashes[inside]
        self._df[at[known]] += step
        for i in np.nonzero(~known)[0].tolist():
            self._new_df[int(hashes[i])] += step

    def merge(
        self,
        terms: npt.NDArray[np.uint32] | None = None,
        slots: Slots | None = None,
        counts: npt.NDArray[np.uint16] | None = None,
    ) -> None:
        """Merge the base, the later additions and these into one sorted base; removed documents drop out."""
        pairs = [(term, slot, count) for term, postings in self._new.items() for slot, count in postings]
        recent = np.array(pairs, np.int64).reshape(-1, 3)
        empty = np.zeros(0, np.int32)
        all_terms = np.concatenate(
            [
                np.repeat(self._vocabulary, np.diff(self._bounds)),
                recent[:, 0].astype(np.uint32),
                empty.astype(np.uint32) if terms is None else terms,
            ]
        )
        all_slots = np.concatenate([self._slots, recent[:, 1].astype(np.int32), empty if slots is None else slots])
        all_counts = np.concatenate(
            [self._counts, recent[:, 2].astype(np.uint16), empty.astype(np.uint16) if counts is None else counts]
        )
        living = self.alive[all_slots]
        if not living.all():
            all_terms, all_slots, all_counts = all_terms[living], all_slots[living], all_counts[living]
        order = np.argsort(all_terms, kind="stable")
        ordered, self._slots, self._counts = all_terms[order], all_slots[order], all_counts[order]
        first = np.ones(len(ordered), np.bool_)
        first[1:] = ordered[1:] != ordered[:-1]
        self._vocabulary = ordered[first]
        self._bounds = np.append(np.flatnonzero(first), len(ordered)).astype(np.int64)
        self._df = np.diff(self._bounds)
        self._new, self._new_df, self._new_pairs = {}, Counter(), 0
        self._norm = None
