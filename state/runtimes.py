"""The function runtime table: how long the methods of actors take, by the size of their arguments.

Each row is a t-digest (Dunning, Ertl: Computing extremely accurate quantiles using t-digests, 2019), and a
second one of the calls before: so what is old is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from fastdigest import TDigest
from numpy.typing import NDArray

from callboard.infra.messages.runtimes import Digest, Runtime

KEPT = 10_000
"""Calls after which a row begins a new digest; the one before the last is forgotten."""
ANY_SIZE = -1
"""Predict for arguments of any size."""
CENTROIDS = 200
_NORMAL = 2.576  # of 99 %

Key: TypeAlias = tuple[str, int]


class Prediction(NamedTuple):
    """How long a call takes.

    Attributes:
        seconds: the quantile asked for, of the calls seen.
        low, high: what it is in truth lies between them with 99 % certainty, which allows for the few calls
            seen and for the digest that has seen them. 0 and ``inf`` where too few were seen to tell.
        seen: calls.
    """

    seconds: float
    low: float
    high: float
    seen: int


class Runtimes:
    """The table, in memory."""

    def __init__(self) -> None:
        self._rows: dict[Key, list[TDigest]] = {}
        self._sizes: dict[str, set[int]] = {}
        self._changed: set[Key] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def learn(self, calls: Sequence[str], sizes: NDArray[np.uint32], took: NDArray[np.float64]) -> None:
        """Calls have ended.

        Args:
            calls: ``actor.method`` of each; sizes: bytes of their arguments; took: seconds.
        """
        seconds: dict[Key, list[float]] = {}
        for call, size, one in zip(calls, sizes.tolist(), took.tolist(), strict=True):
            seconds.setdefault((call, size_of(size)), []).append(one)
        for key, some in seconds.items():
            row = self._row(key)
            if row[-1].mass() >= KEPT:
                row[:] = [row[-1], TDigest(CENTROIDS)]
            row[-1].batch_update(some)
        self._changed |= seconds.keys()

    def _row(self, key: Key) -> list[TDigest]:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = [TDigest(CENTROIDS)]
            self._sizes.setdefault(key[0], set()).add(key[1])
        return row

    def sizes(self, call: str) -> set[int]:
        """The classes of arguments with which a call was seen, see :func:`size_of`."""
        return self._sizes.get(call, set())

    def predict(self, actor: str, method: str, size: int = ANY_SIZE, rank: float = 0.5) -> Prediction | None:
        """How long a call takes, as far as calls like it have been seen; None: none has.

        Args:
            size: bytes of its arguments; where none of that size were seen, all sizes count.
            rank: which quantile, above 0 and below 1.
        """
        call = f"{actor}.{method}"
        row = self._rows.get((call, size_of(size))) if size != ANY_SIZE else None
        if row is None:
            row = [one for known in self._sizes.get(call, ()) for one in self._rows[call, known]]
        return _quantile(_merged(row), rank) if row else None

    # -- messages ------------------------------------------------------------------------------------

    def changed(self) -> list[Runtime]:
        """The rows that have changed since this was last asked."""
        keys, self._changed = self._changed, set()
        return [self._message(key) for key in sorted(keys)]

    def _message(self, key: Key) -> Runtime:
        row = self._rows[key]
        merged = _merged(row)
        p50, p90, p99 = merged.quantile_vec([0.5, 0.9, 0.99])
        return Runtime(*key, int(merged.mass()), p50, p90, p99, [_packed(one) for one in row])

    def load(self, rows: Iterable[Runtime]) -> None:
        """Go on from rows that were stored; rows that cannot be read are passed over."""
        for row in rows:
            try:
                digests = [_unpacked(one) for one in row.digests[-2:]]
            except ValueError:
                continue
            if digests:
                self._row((row.call, row.size))[:] = digests


def size_of(size: int) -> int:
    """The class of arguments of so many bytes: all of as many bits are alike."""
    return size.bit_length()


def _merged(digests: Sequence[TDigest]) -> TDigest:
    merged = TDigest(CENTROIDS)
    for one in digests:
        merged.merge_inplace(one)
    return merged


def _quantile(digest: TDigest, rank: float) -> Prediction:
    deviation = math.sqrt(rank * (1 - rank))
    # Of n calls drawn, the share below the true quantile has this deviation (binomial); the digest knows a
    # rank no better than one of its centroids is wide (scale function k1).
    spread = deviation * (_NORMAL / math.sqrt(digest.mass()) + math.pi / CENTROIDS)
    low, high = rank - spread, rank + spread
    return Prediction(
        seconds=digest.quantile(rank),
        low=digest.quantile(low) if low > 0 else 0.0,
        high=digest.quantile(high) if high < 1 else math.inf,
        seen=int(digest.mass()),
    )


def _packed(digest: TDigest) -> Digest:
    means, counts = np.array(digest.centroids, "<f8").reshape(-1, 2).T
    return Digest(digest.min(), digest.max(), means.tobytes(), counts.tobytes())


def _unpacked(digest: Digest) -> TDigest:
    """The digest.

    Raises:
        ValueError: it is none.
    """
    means, counts = np.frombuffer(digest.means, "<f8"), np.frombuffer(digest.counts, "<f8")
    pairs = zip(means.tolist(), counts.tolist(), strict=True)
    centroids = [{"m": mean, "c": count} for mean, count in pairs if math.isfinite(mean) and count > 0]
    whole = {"max_centroids": CENTROIDS, "min": digest.least, "max": digest.most, "centroids": centroids}
    return TDigest.from_dict(whole)
