"""Reports of telemetry as many hosts would send them, for the cases of the view."""

import time
from array import array
from collections.abc import Iterator

import msgspec

from callboard.infra.messages.telemetry import Ended, Made, Report

CHUNK = 2000
RUN = "01M7ZPG9JAXAD1EHH36R{:06d}"
NAMES = ["agent-{}.work", "flow", "any", ""]


class Source:
    """One host that makes calls, and runs them.

    Args:
        name: of the host.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._sequence = 0

    def made(self, first: int, count: int) -> Iterator[bytes]:
        """Reports of so many futures that were sent; a run has 64."""
        for start in range(first, first + count, CHUNK):
            size = min(CHUNK, first + count - start)
            numbers = range(start, start + size)
            yield self._encoded(
                [name.format(start // CHUNK % 128) for name in NAMES],
                made=Made(
                    future=[_future(number) for number in numbers],
                    sent=array("f", [0.1] * size).tobytes(),
                    call=_names(0, size),
                    session=_names(3, size),
                    workflow=_names(1, size),
                    lane=_names(2, size),
                    band=bytes([1]) * size,
                    priority=bytes(2 * size),
                    stage=array("H", [number % 7 for number in numbers]).tobytes(),
                ),
            )

    def ended(self, first: int, count: int) -> bytes:
        """A report of so many of them that have ended."""
        return self._encoded(
            [name.format(first // CHUNK % 128) for name in NAMES],
            ended=Ended(
                future=[_future(number) for number in range(first, first + count)],
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

    def _encoded(self, names: list[str], **parts: Made | Ended) -> bytes:
        self._sequence += 1
        report = Report(self._name, self._sequence, time.time(), names=names)
        for name, part in parts.items():
            setattr(report, name, part)
        return msgspec.msgpack.encode(report)


def _future(number: int) -> str:
    return f"{RUN.format(number // 64)}:{number % 64}"


def _names(place: int, size: int) -> bytes:
    return array("I", [place] * size).tobytes()
