"""A board on a cluster of three servers, one of which dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.support.board import Board
from tests.support.cluster import Cluster
from tests.support.waiting import eventually, until

from callboard import ManagedCounter, agent, method, options, tool, workflow
from callboard.actors.registry import hosts
from callboard.infra import subjects
from callboard.infra.topology import declared

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(400)]

RUNS = 120
ELECTED_WITHIN = 120.0
"""Seconds; the servers that are left take about ten to agree on new leaders, on a machine that is not busy."""
RAN: Counter[int] = Counter()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three servers."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def nats_url(cluster: Cluster) -> str:
    """Where the cluster listens."""
    return cluster.url


@tool
async def double(number: int) -> int:
    """A call."""
    RAN[number] += 1
    await asyncio.sleep(0.02)
    return 2 * number


@agent
class Tally:
    """Counts what was added up."""

    count: ManagedCounter

    @method
    async def add(self) -> int:
        """One more."""
        self.count += 1
        return self.count


@workflow
async def add_up(number: int) -> int:
    """Three calls, the last of which needs the others; each run is counted."""
    with options(session="all"):
        await Tally.add()
    return await double(double(number).arg) + await double(-number)


@workflow
async def count_once_more() -> int:
    """How many there were, and one."""
    with options(session="all"):
        return await Tally.add()


async def test_nothing_is_lost_with_one_of_three_servers(cluster: Cluster, board: Board) -> None:
    """Streams have three replicas; whoever leads the journal is killed: every run has its result and is counted once."""
    RAN.clear()
    production = {"durability": "production"}
    await board.host(add_up, count_once_more, double, Tally, **production)
    await board.host(add_up, double, Tally, **production)
    client = await board.client(**production)
    for name in declared(client.node.settings):
        config = (await client.node.topology.api(f"STREAM.INFO.{name}"))["config"]
        assert config["num_replicas"] == 3, name

    async def both() -> bool:
        return len(await hosts(client.node)) == 2

    await eventually(both)  # a server that follows may answer, and be a little behind

    async def one(number: int) -> int:
        run = await client.submit("add_up", {"number": number})
        result: int = await client.result(run, ELECTED_WITHIN)
        return result

    info = await client.node.topology.api(f"STREAM.INFO.{subjects.RUNS}")
    leader = next(one for one in cluster.servers if one.name == info["cluster"]["leader"])
    load = [asyncio.create_task(one(number)) for number in range(1, RUNS + 1)]
    await until(lambda: len(RAN) > RUNS)
    await asyncio.to_thread(leader.kill)
    assert not all(task.done() for task in load)
    assert await asyncio.gather(*load) == [2 * number for number in range(1, RUNS + 1)]
    assert await client.run("count_once_more", {}, timeout=ELECTED_WITHIN) == RUNS + 1
    await board.emptied(subjects.REQUESTS, ELECTED_WITHIN)
    await board.emptied(subjects.CALLS, ELECTED_WITHIN)
