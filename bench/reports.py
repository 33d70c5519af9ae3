"""Reports of telemetry as many hosts would send them, for the cases of the view."""

import time
from array import array
from collections.abc import Iterator

import msgspec

from callboard.infra.messages.telemetry import Ended, Made, Report

CHUNK = 2000
STAGES = 7
RUN = "01M7ZPG9JAXAD1EHH36R{:06d}"
AGENTS = 128
NAMES = ["agent-{}.work", "flow", "any", ""]


class Source:
    """One host that makes calls, and runs them.

    Args:
        name: of the host; per_run: open futures of each run, which is a session of its own.
    """

    def __init__(self, name: str, per_run: int = 64) -> None:
        self._name = name
        self._per_run = per_run
        self._sequence = 0

    def made(self, first: int, count: int) -> Iterator[bytes]:
        """Reports of so many futures that were sent."""
        for start in range(first, first + count, CHUNK):
            size = min(CHUNK, first + count - start)
            numbers = range(start, start + size)
            futures = [self._future(number) for number in numbers]
            yield self._made(futures, [number % STAGES for number in numbers], start // CHUNK)

    def advanced(self, first: int, count: int, turn: int) -> list[bytes]:
        """Reports of so many runs, each of which has a future less and one of its next stage more."""
        runs = range(first, first + count)
        made = [_future_of(run, self._per_run + turn) for run in runs]
        ended = [_future_of(run, turn) for run in runs]
        stage = STAGES + turn
        return [self._made(made, [stage] * count, first), self._ended(ended, first)]

    def _made(self, futures: list[str], stages: list[int], agent: int) -> bytes:
        size = len(futures)
        return self._encoded(
            [name.format(agent % AGENTS) for name in NAMES],
            made=Made(
                future=futures,
                sent=array("f", [0.1] * size).tobytes(),
                call=_names(0, size),
                session=_names(3, size),
                workflow=_names(1, size),
                lane=_names(2, size),
                band=bytes([1]) * size,
                priority=bytes(2 * size),
                stage=array("H", stages).tobytes(),
            ),
        )

    def ended(self, first: int, count: int) -> bytes:
        """A report of so many of them that have ended."""
        return self._ended([self._future(number) for number in range(first, first + count)], first // CHUNK)

    def _ended(self, futures: list[str], agent: int) -> bytes:
        count = len(futures)
        return self._encoded(
            [name.format(agent % AGENTS) for name in NAMES],
            ended=Ended(
                future=futures,
                kind=bytes(4 * count),
                ago=bytes(4 * count),
                waited=array("f", [0.01] * count).tobytes(),
                took=array("f", [0.1] * count).tobytes(),
                size=array("I", [100] * count).tobytes(),
                call=_names(0, 1),
                session=_names(3, 1),
                how=bytes(1),
                band=bytes([1]),
                priority=bytes(2),
                stage=bytes(2),
                attempt=array("H", [1]).tobytes(),
            ),
        )

    def _future(self, number: int) -> str:
        return _future_of(number // self._per_run, number % self._per_run)

    def _encoded(self, names: list[str], **parts: Made | Ended) -> bytes:
        self._sequence += 1
        report = Report(self._name, self._sequence, time.time(), names=names)
        for name, part in parts.items():
            setattr(report, name, part)
        return msgspec.msgpack.encode(report)


def _future_of(run: int, number: int) -> str:
    return f"{RUN.format(run)}:{number}"


def _names(place: int, size: int) -> bytes:
    return array("I", [place] * size).tobytes()
