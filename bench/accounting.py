"""CPU and memory over all processes of a side: client, worker and nats-server."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import psutil

Parts: TypeAlias = Mapping[str, Sequence[int]]
"""Process ids of a side by what they are: `server`, `worker`, `client`."""


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """CPU seconds, user and system, of these processes.

    The kernel counts in ticks of 10 ms per process, so a window should be much longer.
    """
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def cpu_of(pid: int) -> float:
    """CPU seconds of one process, to the nanosecond where the kernel tells."""
    tasks = list(Path(f"/proc/{pid}/task").glob("*/schedstat"))
    if not tasks:
        return cpu_seconds([psutil.Process(pid)])
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


def memory_bytes(processes: Iterable[psutil.Process]) -> float:
    """Proportional set size in bytes of these processes.

    Where the kernel tells no proportional set size, the resident set size stands in.
    """
    return float(sum(_memory_of(process) for process in processes))


def by_part(parts: Parts, figure: Callable[[Iterable[psutil.Process]], float]) -> dict[str, float]:
    """A figure of each part: of its processes and their living descendants.

    A descendant that another part names counts there and only there: the client is the parent of
    server and workers.
    """
    named = {pid for pids in parts.values() for pid in pids}
    return {
        part: figure({process for pid in pids for process in _tree(pid, named)})
        for part, pids in parts.items()
    }


def _tree(pid: int, named: AbstractSet[int]) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        yield process
        for child in process.children():
            if child.pid not in named:
                yield from _tree(child.pid, named)


def _memory_of(process: psutil.Process) -> int:
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        with contextlib.suppress(psutil.Error):
            return int(process.memory_info().rss)
        return 0
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class CpuMeter:
    """Context manager around the timed part of a case; `seconds` is what it cost, by part.

    Args:
        parts: the processes to count, with their descendants.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._before: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def _now(self) -> dict[str, float]:
        return by_part(self._parts, cpu_seconds)

    def __enter__(self) -> Self:
        self._before = self._now()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = growth(self._before, self._now())


def growth(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """By how much each part's figure grew."""
    return {part: after[part] - before[part] for part in after}


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile of `values`, which must not be empty."""
    rank = max(1, math.ceil(len(values) * percent / 100))
    return sorted(values)[rank - 1]
