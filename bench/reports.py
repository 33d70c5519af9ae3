"""Reports of telemetry as many hosts would send them, for the cases of the view and of its rounds."""

import time
from array import array
from collections.abc import Iterable, Iterator, Mapping

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

    def whole(self, runs: Iterable[int], steps: Mapping[int, int]) -> Iterator[bytes]:
        """Its whole state in parts: all futures of these runs, as they are when a part is asked for.

        Args:
            steps: how often each run was stepped so far.
        """
        numbers = list(runs)
        each = max(1, CHUNK // self._per_run)
        for part, start in enumerate(range(0, len(numbers), each), 1):
            told = [
                (run, number) for run in numbers[start : start + each] for number in self._open(steps[run])
            ]
            futures = [_future_of(run, number) for run, number in told]
            made = _made(futures, [self._stage(run, number) for run, number in told])
            last = start + each >= len(numbers)
            yield self._encoded(_named(part), part=part, last=last, made=made)

    def stepped(self, runs: Mapping[int, int]) -> bytes:
        """One report of runs, each of which has a future less and one of its next stage more.

        Args:
            runs: how often each was stepped before.
        """
        stages = [STAGES + step for step in runs.values()]
        made = _made([_future_of(run, self._per_run + step) for run, step in runs.items()], stages)
        ended = _ended([_future_of(run, step) for run, step in runs.items()])
        return self._encoded(_named(min(runs)), made=made, ended=ended)

    def _open(self, step: int) -> range:
        """Which futures of a run are open."""
        return range(step, self._per_run + step)

    def _stage(self, run: int, number: int) -> int:
        before = number < self._per_run
        return (run * self._per_run + number) % STAGES if before else STAGES + number - self._per_run

    def _made(self, futures: list[str], stages: list[int], agent: int) -> bytes:
        return self._encoded(_named(agent), made=_made(futures, stages))

    def ended(self, first: int, count: int) -> bytes:
        """A report of so many of them that have ended."""
        return self._ended([self._future(number) for number in range(first, first + count)], first // CHUNK)

    def _ended(self, futures: list[str], agent: int) -> bytes:
        return self._encoded(_named(agent), ended=_ended(futures))

    def _future(self, number: int) -> str:
        return _future_of(number // self._per_run, number % self._per_run)

    def _encoded(
        self,
        names: list[str],
        part: int = 0,
        *,
        last: bool = False,
        made: Made | None = None,
        ended: Ended | None = None,
    ) -> bytes:
        self._sequence += 1
        report = Report(self._name, self._sequence, time.time(), part=part, last=last, names=names)
        report.made, report.ended = made, ended
        return msgspec.msgpack.encode(report)


def _made(futures: list[str], stages: list[int]) -> Made:
    size = len(futures)
    return Made(
        future=futures,
        sent=array("f", [0.1] * size).tobytes(),
        call=_names(0, size),
        session=_names(3, size),
        workflow=_names(1, size),
        lane=_names(2, size),
        band=bytes([1]) * size,
        priority=bytes(2 * size),
        stage=array("H", stages).tobytes(),
    )


def _ended(futures: list[str]) -> Ended:
    count = len(futures)
    return Ended(
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
    )


def _named(agent: int) -> list[str]:
    return [name.format(agent % AGENTS) for name in NAMES]


def _future_of(run: int, number: int) -> str:
    return f"{RUN.format(run)}:{number}"


def _names(place: int, size: int) -> bytes:
    return array("I", [place] * size).tobytes()
