"""Rounds of a controller over a real server, heard from outside."""

import asyncio
import random
import time
from typing import NamedTuple

import msgspec

from bench.accounting import percentile
from bench.harness import Bound, Metric, Role, Sample, case
from bench.jobs import LedgerReader
from bench.many_reporters import STEP
from bench.processes import Place, place, start_server, until
from bench.reports import STAGES
from bench.sides import worker_env
from bench.timed_controller import DONE, Done
from callboard.actors.node import Node
from callboard.controller.policies.srtf import Srtf
from callboard.infra import subjects
from callboard.infra.settings import Settings

HOSTS = 64
PROCESSES = 4
MANY = 131_072
MOST = 1_048_576
CALLS_OF_RUN = 64
CHANGED = 100
TURNS = 80  # a session is at the highest priority after four
SETTLES_S = 180.0
PATIENCE_S = 30.0


def _metrics(board: str, at_most: float) -> tuple[Metric, ...]:
    return (
        Metric(f"round_{board}", "ms", Bound(at_most=at_most)),
        Metric(f"round_{board}_p99", "ms", Bound(), max),
        Metric(f"stored_{board}", "ms", Bound()),
        Metric(f"stored_{board}_p99", "ms", Bound(), max),
    )


@case(
    "control_round_live",
    *_metrics("131072", 40.0),
    *_metrics("131072_sessions", 40.0),
    *_metrics("1048576", 300.0),
    floor=False,
    rounds=1,
    timeout_s=600,
)
async def control_round_live(_: Role) -> Sample:
    """A controller hears of 100 sessions a stage further, of 64 hosts; its round, and until all is stored."""
    values: dict[str, float] = {}
    details: dict[str, float] = {}
    for name, count, per_run in (
        ("131072", MANY, CALLS_OF_RUN),
        ("131072_sessions", MANY, 1),
        ("1048576", MOST, CALLS_OF_RUN),
    ):
        took = await turns(count, per_run, TURNS)
        for figure, seconds in (
            ("round", [one.round for one in took]),
            ("stored", [one.stored for one in took]),
        ):
            values[f"{figure}_{name}"] = percentile(seconds, 50) * 1000
            values[f"{figure}_{name}_p99"] = percentile(seconds, 99) * 1000
        for part in ("waiting", "collecting", "reading", "deciding", "storing"):
            seconds = [getattr(one, part) for one in took]
            details[f"{part}_{name}_ms"] = percentile(seconds, 50) * 1000
            details[f"{part}_{name}_p99_ms"] = percentile(seconds, 99) * 1000
    return Sample(values=values, details=details)


class Turn(NamedTuple):
    """Seconds of one change of 100 sessions.

    Attributes:
        stored: from its publishing until the last decision over it is heard.
        round: from the first report that is read until all decisions are stored, without the waiting.
        waiting: from the last report until the policy's next turn.
        collecting: from the first report to the last; reading: of that, taking reports into the view.
        deciding, storing: as the controller tells.
    """

    stored: float
    round: float
    waiting: float
    collecting: float
    reading: float
    deciding: float
    storing: float


async def turns(count: int, per_run: int, changes: int) -> list[Turn]:
    """What so many changes took, one after the other.

    Args:
        count: open futures; per_run: of each run, which is a session of its own.
    """
    async with place() as here:
        server = await start_server(here)
        node = Node(Settings.load(nats_url=server.url), "bench")
        await node.open()
        try:
            board = Board(here, node)
            controller = await here.spawn_python("bench.timed_controller", server.url, "srtf")
            await controller.until_logged("leading")
            await board.settle(server.url, count, per_run)
            return [await board.once(str(number)) for number in range(changes)]
        finally:
            await node.close()


class Board:
    """A server with 64 hosts that tell, and a controller that leads.

    Args:
        here: where the processes are; node: open.
    """

    def __init__(self, here: Place, node: Node) -> None:
        self._here, self._node = here, node
        self._ledger = LedgerReader(here.folder / "ledger")
        self._random = random.Random(7)
        self._heard: dict[bytes, float] = {}
        node.connection.subscribe(subjects.policy("priority.>"), self._on_decision)

    def _on_decision(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        self._heard[subject] = time.monotonic()

    async def settle(self, url: str, count: int, per_run: int) -> None:
        """Have all hosts tell of so many futures, and wait until all is decided that there is to decide."""
        hosts, runs = HOSTS // PROCESSES, count // per_run
        each = (str(one) for one in (hosts, runs // HOSTS, per_run, CHANGED // PROCESSES))
        arguments = list(each)
        told = [
            await self._here.spawn_python(
                "bench.many_reporters", url, str(first), *arguments, extra_env=worker_env(self._here)
            )
            for first in range(0, HOSTS, hosts)
        ]
        await asyncio.gather(*(one.until_logged("told.", timeout_s=SETTLES_S) for one in told))
        first = sum(_deepest(run, per_run) > 1 for run in range(runs))
        await until(lambda: len(self._heard) >= first, SETTLES_S)
        found = (await self._done(first)).futures
        if found != count:
            raise RuntimeError(f"the view has {found} futures instead of {count}")

    async def once(self, name: str) -> Turn:
        """One change, at any time between two rounds."""
        await asyncio.sleep(self._random.uniform(0, Srtf.every))
        self._heard.clear()
        self._node.connection.publish(STEP, name.encode())
        await until(lambda: len(self._heard) >= CHANGED, PATIENCE_S)
        published = min(one.at_s for one in self._ledger.fresh() if one.key == name)
        return turn(await self._done(CHANGED), published, max(self._heard.values()))

    async def _done(self, decisions: int) -> Done:
        """What the controller has done, once it knows that so many decisions are stored."""
        done = Done(0, [], [])
        async with asyncio.timeout(PATIENCE_S):
            while sum(one.decisions for one in done.rounds) < decisions:
                answer = await self._node.connection.request(DONE, timeout=PATIENCE_S)
                more = msgspec.msgpack.decode(answer, type=Done)
                done = Done(more.futures, done.reads + more.reads, done.rounds + more.rounds)
        return done


def turn(done: Done, published: float, heard: float) -> Turn:
    """What the time was spent on.

    Args:
        done: by the controller; published, heard: seconds of the same clock.
    """
    waiting, end = 0.0, 0.0
    for one in done.rounds:
        before = [ended for _, ended in done.reads if ended <= one.began]
        waiting += one.began - max([end, *before])
        end = one.began + one.deciding + one.storing
    deciding, storing = (sum(getattr(one, part) for one in done.rounds) for part in ("deciding", "storing"))
    spent = end - done.reads[0][0] - waiting
    reading = sum(ended - began for began, ended in done.reads)
    return Turn(heard - published, spent, waiting, spent - deciding - storing, reading, deciding, storing)


def _deepest(run: int, per_run: int) -> int:
    """The deepest stage of a run at the beginning."""
    return max((run * per_run + number) % STAGES for number in range(min(per_run, STAGES)))
