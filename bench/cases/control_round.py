"""One round of the controller: read what has changed, decide by SRTF, have the decisions stored."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator

import psutil

from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import place, start_server
from bench.reports import Source
from callboard.actors.node import Node
from callboard.controller.decisions import Decisions
from callboard.controller.limited import ROUND, within
from callboard.controller.policies.srtf import Srtf
from callboard.controller.policy import Act
from callboard.controller.view import View
from callboard.infra.messages.policy import Decision
from callboard.infra.settings import Settings

HOSTS = 64
MANY = 131_072
MOST = 1_048_576
CALLS_OF_RUN = 64
CHANGED = 100
ROUNDS = 40
MB = 1e6


@case(
    "control_round",
    Metric("round_131072", "ms", Bound(at_most=40.0)),
    Metric("round_131072_sessions", "ms", Bound(at_most=40.0)),
    Metric("round_1048576", "ms", Bound(at_most=300.0)),
    Metric("memory_1048576", "MB", Bound(at_most=500.0)),
    floor=False,
    rounds=3,
)
async def control_round(_: Role) -> Sample:
    """Collect, decide by SRTF and publish; of so many live futures 100 are new, and 100 have ended."""
    values: dict[str, float] = {}
    details: dict[str, float] = {}
    for name, count, per_run in (  # the largest first: its memory is to be its own
        ("1048576", MOST, CALLS_OF_RUN),
        ("131072", MANY, CALLS_OF_RUN),
        ("131072_sessions", MANY, 1),
    ):
        rounds = Rounds(count, per_run)
        async with place() as here:
            server = await start_server(here)
            async with rounds.connected(server.url):
                await rounds.settle()
                took = [await rounds.once(turn) for turn in range(ROUNDS)]
                memory_mb = psutil.Process().memory_info().rss / MB
        if count == MOST:
            values["memory_1048576"] = memory_mb
        values[f"round_{name}"] = statistics.median(map(sum, took)) * 1000
        details[f"round_{name}_worst_ms"] = max(map(sum, took)) * 1000
        for part, parts in zip(("collect", "decide", "publish"), zip(*took, strict=True), strict=True):
            details[f"{part}_{name}_ms"] = statistics.median(parts) * 1000
    return Sample(values=values, details=details)


class Rounds:
    """A controller's view and decisions, as they are while it leads.

    Args:
        count: live futures; per_run: of each run, which is a session of its own.
    """

    def __init__(self, count: int, per_run: int) -> None:
        self._count = count
        self._runs = count // per_run
        self._sources = {f"h-{number}": Source(f"h-{number}", per_run) for number in range(HOSTS)}
        self._view = View()
        self._policy = Srtf()

    @contextlib.asynccontextmanager
    async def connected(self, url: str) -> AsyncIterator[None]:
        """While this is open it leads."""
        node = Node(Settings.load(nats_url=url), "c-bench")
        await node.open()
        self._decisions = Decisions(node, node.name, lambda _: None, asyncio.create_task)
        try:
            await self._decisions.start()
            await self._decisions.lead(1)
            yield
        finally:
            self._decisions.stop()
            await node.close()

    async def settle(self) -> None:
        """Tell of all futures, each from one of the hosts, and decide what there is to decide."""
        share = self._count // HOSTS
        for number, (host, source) in enumerate(self._sources.items()):
            for body in source.made(number * share, share):
                self._view.read(host, body)
        while decisions := self._decide():
            await self._decisions.write(decisions)
        if len(self._view.futures) != self._count:
            raise RuntimeError(f"the view has {len(self._view.futures)} futures instead of {self._count}")

    async def once(self, turn: int) -> tuple[float, float, float]:
        """Seconds of reading, of deciding and of storing."""
        first = turn * CHANGED % (self._runs - CHANGED)
        host = f"h-{first * HOSTS // self._runs}"
        reports = self._sources[host].advanced(first, CHANGED, turn * CHANGED // (self._runs - CHANGED))
        begun = time.perf_counter()
        for body in reports:
            self._view.read(host, body)
        read = time.perf_counter()
        decisions = self._decide()
        decided = time.perf_counter()
        if len(decisions) != CHANGED:
            raise RuntimeError(f"{len(decisions)} decisions instead of {CHANGED}")
        await self._decisions.write(decisions)
        return read - begun, decided - read, time.perf_counter() - decided

    def _decide(self) -> list[Decision]:
        act = Act(self._view, "srtf", "", self._decisions.held)
        within(ROUND, self._policy, self._view, act)
        return act.decisions
