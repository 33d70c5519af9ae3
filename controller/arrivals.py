"""When requests are submitted, in which session and with which arguments: planned before the load begins.

A plan depends on its options and its seed alone, so that it can be repeated, and saved as a trace.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from callboard.infra.errors import LoadInvalid

_MOST = 1_000_000
"""Requests of one plan: more are likely a slip of the finger."""


class Arrival(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One request to submit; a line of a trace.

    Attributes:
        at: seconds after the beginning.
        session: whose; a run of its own when empty.
        arguments: of the workflow, beside those of all requests.
    """

    at: float
    session: str = ""
    arguments: dict[str, Any] = {}


class Skew:
    """How unevenly something is drawn, and how that changes.

    Args:
        text: ``even``; ``zipf:S``: the n-th is drawn 1/n^S as often as the first; ``hot:P``: the first
            has the share P, the others have the rest in equal parts.
        shift: seconds after which the next one becomes the first; 0: never.

    Raises:
        LoadInvalid: it is none of these.
    """

    def __init__(self, text: str = "even", shift: float = 0.0) -> None:
        kind, _, number = text.partition(":")
        try:
            strength = float(number) if number else -1.0
        except ValueError:
            strength = -1.0
        fits = {"even": not number, "zipf": 0 <= strength < math.inf, "hot": 0 <= strength <= 1}
        if not fits.get(kind, False):
            raise LoadInvalid(f"--skew is 'even', 'zipf:1.1' or 'hot:0.9', not {text!r}", problem="skew")
        self._kind = kind
        self._strength = max(strength, 0.0)
        self.shift = shift

    def shares(self, size: int) -> list[float]:
        """The shares of so many, the most frequent first; together 1."""
        if self._kind == "hot" and size > 1:
            return [self._strength] + [(1 - self._strength) / (size - 1)] * (size - 1)
        steepness = self._strength if self._kind == "zipf" else 0.0
        weights = [(place + 1) ** -steepness for place in range(size)]
        total = sum(weights)
        return [weight / total for weight in weights]


class Drawn:
    """Draws one of several values, unevenly.

    Args:
        values: at least one.
    """

    def __init__(self, values: Sequence[Any], skew: Skew) -> None:
        self._values = values
        self._shift = skew.shift
        self._sums = list(itertools.accumulate(skew.shares(len(values))))

    def at(self, seconds: float, rng: random.Random) -> Any:
        """One of them, so many seconds after the beginning."""
        place = min(bisect.bisect(self._sums, rng.random()), len(self._values) - 1)
        turn = int(seconds / self._shift) if self._shift else 0
        return self._values[(place + turn) % len(self._values)]


def poisson(
    rate: float,
    seconds: float,
    seed: int,
    *,
    sessions: int = 0,
    vary: Mapping[str, Sequence[Any]] | None = None,
    skew: Skew | None = None,
) -> list[Arrival]:
    """Arrivals that know nothing of each other: the times between them are exponential.

    Args:
        rate: requests a second; seconds: how long.
        seed: the same one gives the same plan.
        sessions: how many there are; 0: each request is a session of its own.
        vary: arguments with the values that they are drawn from.
        skew: of sessions and values alike.

    Raises:
        LoadInvalid: the rate or the time is not above 0, or sessions are below; or it would be too many.
    """
    if not (0 < rate < math.inf and 0 < seconds < math.inf):
        raise LoadInvalid("--rate and --for must be above 0", problem="rate")
    if sessions < 0:
        raise LoadInvalid("--sessions must be 0 or above", problem="sessions")
    if rate * seconds > _MOST:
        raise LoadInvalid(f"that would be {rate * seconds:,.0f} requests; at most {_MOST:,}", problem="rate")
    rng, how = random.Random(seed), skew or Skew()
    names = Drawn([f"s{number}" for number in range(sessions)], how) if sessions else None
    drawn = {name: Drawn(values, how) for name, values in (vary or {}).items()}
    plan: list[Arrival] = []
    at = rng.expovariate(rate)
    while at < seconds:
        session = names.at(at, rng) if names else ""
        plan.append(Arrival(at, session, {name: one.at(at, rng) for name, one in drawn.items()}))
        at += rng.expovariate(rate)
    return plan


def read_trace(file: Path, seconds: float | None = None) -> list[Arrival]:
    """The arrivals of a trace: JSON lines, in any order.

    Args:
        seconds: how much of it; all by default.

    Raises:
        LoadInvalid: it cannot be read.
    """
    try:
        plan = msgspec.json.Decoder(Arrival).decode_lines(file.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        text = f'{file} is no trace: {error}; a line is {{"at": 0.5, "arguments": {{}}}}'
        raise LoadInvalid(text, problem="trace") from error
    if any(not 0 <= arrival.at < math.inf for arrival in plan):
        raise LoadInvalid(f"{file} is no trace: a time is below 0", problem="trace")
    return sorted(
        (one for one in plan if seconds is None or one.at < seconds), key=lambda arrival: arrival.at
    )


def write_trace(file: Path, plan: Iterable[Arrival]) -> None:
    """Save a plan, so that it can be played again.

    Raises:
        LoadInvalid: the file cannot be written.
    """
    try:
        file.write_bytes(msgspec.json.Encoder().encode_lines(list(plan)))
    except OSError as error:
        raise LoadInvalid(f"{file} cannot be written: {error}", problem="trace") from error
