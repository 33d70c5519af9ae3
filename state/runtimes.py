"""The function runtime table: how long the methods of actors take, by the size of their arguments.

Each row is a t-digest (Dunning, Ertl: Computing extremely accurate quantiles using t-digests, 2019), and a
second one of the calls before: so what is old is forgotten. A few of the latest calls of each row are kept as
they were: a curve through those of all sizes tells what to expect of one size, see `fitting`.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from fastdigest import TDigest
from numpy.typing import NDArray

from callboard.infra.messages.runtimes import Curve, Digest, Line, Runtime
from callboard.state.curves import Expected
from callboard.state.fitting import Sample, fit, logarithms

KEPT = 10_000
"""Calls after which a row begins a new digest; the one before the last is forgotten."""
ANY_SIZE = -1
"""Predict for arguments of any size."""
CENTROIDS = 200
SAMPLED = 64
"""Calls of a row that are kept as they were, the latest ones."""
JUDGED = 100
"""Latest calls of a method of which it is kept how far off was what was expected."""
_GROWTH = 4
_LONGEST = 1e9
_MOST_BITS = 32
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


class _Method:
    """What is known of a method beside its quantiles.

    Attributes:
        samples: by size; errors: of the latest calls; expected: the curve, once there is one.
        fresh: calls since it was made as a whole, of seen ones; stale: sizes of calls since it was made.
    """

    def __init__(self) -> None:
        self.samples: dict[int, Sample] = {}
        self.errors: deque[float] = deque(maxlen=JUDGED)
        self.expected: Expected | None = None
        self.fresh = self.seen = 0
        self.stale: set[int] = set()

    def judge(self, sizes: Sequence[int], took: Sequence[float]) -> None:
        """Hold what was expected against what came, before it is learnt from."""
        if self.expected is None:
            return
        for size, one in zip(sizes[-JUDGED:], took[-JUDGED:], strict=True):
            if 0 < one < _LONGEST:
                self.errors.append(abs(self.expected.seconds(size) - one) / one)

    def keep(self, bits: int, sizes: Sequence[int], took: Sequence[float]) -> None:
        """Keep the latest calls of a size."""
        seconds = np.nan_to_num(np.clip(np.array(took[-SAMPLED:]), 0, _LONGEST))
        fresh = (np.array(sizes[-SAMPLED:], "<f4"), seconds.astype("<f4"))
        known = self.samples.get(bits)
        if known is not None:
            fresh = (
                np.concatenate((known[0], fresh[0]))[-SAMPLED:],
                np.concatenate((known[1], fresh[1]))[-SAMPLED:],
            )
        self.samples[bits] = fresh
        self.stale.add(bits)
        self.fresh += len(sizes)
        self.seen += len(sizes)


class Runtimes:
    """The table, in memory."""

    def __init__(self) -> None:
        self._rows: dict[Key, list[TDigest]] = {}
        self._sizes: dict[str, set[int]] = {}
        self._methods: dict[str, _Method] = {}
        self._changed: set[Key] = set()
        self._bent: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def learn(self, calls: Sequence[str], sizes: NDArray[np.uint32], took: NDArray[np.float64]) -> None:
        """Calls have ended.

        Args:
            calls: ``actor.method`` of each; sizes: bytes of their arguments; took: seconds.
        """
        groups: dict[Key, tuple[list[int], list[float]]] = {}
        for call, size, one in zip(calls, sizes.tolist(), took.tolist(), strict=True):
            group = groups.setdefault((call, size_of(size)), ([], []))
            group[0].append(size)
            group[1].append(one)
        for (call, bits), some in groups.items():
            self._method(call).judge(*some)
            row = self._row((call, bits))
            if row[-1].mass() >= KEPT:
                row[:] = [row[-1], TDigest(CENTROIDS)]
            row[-1].batch_update(some[1])
        for (call, bits), some in groups.items():  # when all of them have been judged
            self._method(call).keep(bits, *some)
        for call in {call for call, _ in groups}:
            method = self._method(call)
            if method.fresh * _GROWTH >= method.seen:
                self._bend(call, method)
        self._changed |= groups.keys()
        self._bent |= {call for call, _ in groups}

    def _method(self, call: str) -> _Method:
        found = self._methods.get(call)
        if found is None:
            found = self._methods[call] = _Method()
        return found

    def _bend(self, call: str, method: _Method) -> None:
        """Make the curve of a method anew: as a whole when much has come, else where something has."""
        known = {} if method.expected is None else {line.size: line for line in method.expected.lines}
        whole = method.fresh * _GROWTH >= method.seen
        logs = logarithms(method.samples)
        for bits in logs.keys() if whole else method.stale & logs.keys():
            known[bits] = self._line(call, bits, *fit(logs, bits))
        method.stale.clear()
        method.fresh = 0 if whole else method.fresh
        lines = [known[bits] for bits in sorted(known)]
        middle = self.predict(*call.rpartition(".")[::2])
        if lines and middle is not None:
            with contextlib.suppress(ValueError):  # of times that nobody can have measured
                method.expected = Expected(Curve(call, middle.seconds, lines))

    def _line(self, call: str, bits: int, level: float, slope: float) -> Line:
        merged = _merged(self._rows[call, bits])
        return Line(bits, round(level, 4), round(slope, 4), int(merged.mass()), merged.quantile(0.99))

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

    def expect(self, actor: str, method: str, size: int = ANY_SIZE) -> float:
        """How many seconds a call is likely to take; 0: nobody knows.

        What :meth:`predict` tells is true of all calls of as many bits; this is of one size, also of one that
        was not seen, by those that were.

        Args:
            size: bytes of its arguments; of any size it is the median of all.
        """
        found = self._methods.get(f"{actor}.{method}")
        if found is None or found.expected is None:
            return 0.0
        return found.expected.middle if size == ANY_SIZE else found.expected.seconds(size)

    def error(self, actor: str, method: str) -> float | None:
        """By what share the expected times of the latest calls were off: their median; None: nobody knows."""
        found = self._methods.get(f"{actor}.{method}")
        return float(np.median(found.errors)) if found is not None and found.errors else None

    # -- messages ------------------------------------------------------------------------------------

    def changed(self) -> list[Runtime]:
        """The rows that have changed since this was last asked."""
        keys, self._changed = self._changed, set()
        return [self._message(key) for key in sorted(keys)]

    def curves(self) -> Iterator[Curve]:
        """The curves that have changed since this was last asked; each takes some milliseconds at most."""
        calls, self._bent = self._bent, set()
        for call in sorted(calls):
            method = self._methods[call]
            if method.stale:
                self._bend(call, method)
            if method.expected is not None:
                known = method.expected.curve
                errors = np.array(method.errors, "<f4").tobytes()
                yield Curve(call, known.middle, known.lines, errors)

    def _message(self, key: Key) -> Runtime:
        row = self._rows[key]
        merged = _merged(row)
        p50, p90, p99 = merged.quantile_vec([0.5, 0.9, 0.99])
        sizes, took = self._method(key[0]).samples.get(key[1], (np.empty(0, "<f4"), np.empty(0, "<f4")))
        return Runtime(
            *key,
            count=int(merged.mass()),
            p50=p50,
            p90=p90,
            p99=p99,
            digests=[_packed(one) for one in row],
            sizes=sizes.tobytes(),
            took=took.tobytes(),
        )

    def load(self, rows: Iterable[Runtime], curves: Iterable[Curve] = ()) -> None:
        """Go on from what was stored; what cannot be read is passed over."""
        for row in rows:
            try:
                digests = [_unpacked(one) for one in row.digests[-2:]]
                sizes, took = _column(row.sizes), _column(row.took)
            except ValueError:
                continue
            if digests and len(sizes) == len(took) and 0 <= row.size <= _MOST_BITS:
                self._row((row.call, row.size))[:] = digests
                if len(sizes):
                    self._method(row.call).keep(row.size, sizes.tolist(), took.tolist())
        for call, method in self._methods.items():
            if method.stale:
                self._bend(call, method)
        for curve in curves:
            known = self._methods.get(curve.call)
            if known is not None:
                with contextlib.suppress(ValueError):
                    known.errors.extend(_column(curve.errors).tolist())


def size_of(size: int) -> int:
    """The class of arguments of so many bytes: all of as many bits are alike."""
    return size.bit_length()


def _column(packed: bytes) -> NDArray[np.float32]:
    """A column of what is above 0, or is 0.

    Raises:
        ValueError: it is none.
    """
    column = np.frombuffer(packed, "<f4")
    if not (np.isfinite(column) & (column >= 0)).all():
        raise ValueError("a column has values that are no sizes or times")
    return column


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
