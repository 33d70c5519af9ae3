"""Limits of requests: what is above them waits, and is lost in no case; what would be too late is told so."""

from __future__ import annotations

import asyncio
import math
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.board import Board
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, eventually, until

from callboard import signal, tool, workflow
from callboard.actors.admission import Bucket
from callboard.actors.driver import Driver
from callboard.actors.host import Host
from callboard.infra import subjects
from callboard.infra.errors import AdmissionInvalid, Overloaded, RunFailed
from callboard.infra.messages.policy import Admission

BEGAN: list[tuple[int, float]] = anew([])
GATE = Gate()


@tool
async def waits_here(number: int) -> int:
    """Wait at the gate."""
    await GATE.wait()
    return number


@workflow
async def counted(number: int) -> int:
    """Make a note of when it begins."""
    BEGAN.append((number, time.monotonic()))
    return number


@workflow
async def gated(number: int) -> int:
    """One call, which waits."""
    BEGAN.append((number, time.monotonic()))
    return await waits_here(number)


@workflow
async def parked(number: int) -> int:
    """Wait for a signal."""
    await signal("go")
    return number


@workflow(concurrency=1)
async def narrow(number: int) -> int:
    """One at a time in a driver; waits for a signal if its number is 0."""
    if number == 0:
        await signal("go")
    await asyncio.sleep(0)  # where one that is too late is stopped
    BEGAN.append((number, time.monotonic()))
    return number


@workflow(timeout=0.5)
async def timed(number: int) -> int:
    """Has a time of its own."""
    BEGAN.append((number, time.monotonic()))
    return number


def door(host: Host) -> int:
    """How many requests wait in a host to be accepted."""
    return sum(len(member._door) for member in host.instances() if isinstance(member, Driver))


def rate_of(host: Host) -> float | None:
    """The limit that a host follows."""
    limit = host.admissions.of("counted")
    return None if limit is None else limit.rate


def share(host: Host) -> float:
    """How many requests a second a host accepts by itself."""
    (driver,) = host.instances()
    assert isinstance(driver, Driver)
    bucket = driver._door._bucket
    return bucket.rate if bucket is not None else math.inf


async def limited(*hosts: Host, workflow: str = "counted") -> None:
    """Wait until all of them know of a limit."""
    await until(lambda: all(host.admissions.of(workflow) is not None for host in hosts))


@given(st.floats(0.01, 1e4), st.lists(st.floats(0, 5), max_size=100))
def test_a_bucket_keeps_to_its_rate(rate: float, steps: list[float]) -> None:
    """However they come; and it knows when the next one may."""
    now, taken = 0.0, 0
    bucket = Bucket(rate, now)
    for step in steps:
        now += step
        taken += bucket.take(now)
        assert taken <= max(1.0, rate / 10) + rate * now + 1e-3
    wait = bucket.wait(now)
    if wait > 1e-3:
        assert not bucket.take(now + 0.9 * wait)
    assert bucket.take(now + wait + 1e-6 / rate)


def test_a_bucket_of_rate_0_lets_nobody_in() -> None:
    """Whatever it let in before."""
    bucket = Bucket(5.0, 0.0)
    assert bucket.take(1.0)
    bucket.change(0.0, 2.0)
    assert not bucket.take(1e9)
    assert bucket.wait(1e9) == math.inf


async def test_as_many_are_accepted_as_the_rate_says(board: Board) -> None:
    """Of several drivers all together; on each in the order of the stream. Nobody notices but by the time."""
    hosts = [await board.host(counted), await board.host(counted)]
    await until(lambda: all(len(host.watch.serving("counted")) == 2 for host in hosts))
    client = await board.client()
    await client.admit("counted", 40.0)
    await limited(*hosts)
    begun = time.monotonic()  # before the first is accepted, however long it then takes to begin
    found = await asyncio.gather(*(client.run("counted", {"number": n}, timeout=SOON) for n in range(40)))
    assert found == list(range(40))
    assert len(BEGAN) == 40
    assert max(at for _, at in BEGAN) - begun >= (40 - 5) / 40  # each driver has two at once at most


async def test_drivers_have_equal_shares(board: Board) -> None:
    """Whatever each has to do: of one that has gone the others have the share."""
    first, second, client = await board.host(counted), await board.host(counted), await board.client()
    await client.admit("counted", 40.0)
    await until(lambda: [share(first), share(second)] == [20.0, 20.0])
    third = await board.host(counted)
    await until(lambda: {share(first), share(second), share(third)} == {40.0 / 3})
    await board.kill(third)
    await second.stop(grace=0.2)
    await until(lambda: share(first) == 40.0)


async def test_no_more_wait_in_a_driver_than_it_has_slots(board: Board) -> None:
    """The others wait in the stream: those that are too late hear of it when they come out of it."""
    host, client, node = await board.host(narrow, park_after=0.05), await board.client(), await board.node()
    woken = await client.submit("narrow", {"number": 0})
    await board.entries(woken, "aside")
    await board.emptied("REQUESTS")
    await client.admit("narrow", 0)
    await limited(host, workflow="narrow")
    runs = [await client.submit("narrow", {"number": 1})]
    await until(lambda: door(host) == 1)
    runs.append(await client.submit("narrow", {"number": 2}))
    late = await client.submit("narrow", {"number": 3}, deadline=0.2)
    over = time.time() + 0.2
    await client.signal(woken, "go")

    async def stored() -> bool:
        return bool((await board.stream("REQUESTS"))["messages"] == 4)

    await eventually(stored)
    await until(lambda: time.time() > over)
    assert door(host) == 1
    assert await node.journal.done(late) is None
    await client.admit("narrow", None)
    assert [await client.result(run, SOON) for run in (*runs, woken)] == [1, 2, 0]
    assert (await client.done(late, SOON)).status == "failed"
    assert [number for number, _ in BEGAN] == [1, 2, 0]


async def test_requests_that_nobody_waits_for_are_kept(board: Board) -> None:
    """Published by any NATS client, without an id or a deadline: they wait, and all of them run in the end."""
    host, client, node = await board.host(counted), await board.client(), await board.node()
    await client.admit("counted", 0)
    await limited(host)
    for number in range(5):
        await node.store.stored(subjects.request("counted"), msgspec.json.encode({"number": number}))
    await until(lambda: door(host) == 5)
    assert BEGAN == []
    await client.admit("counted", None)
    await board.emptied("REQUESTS")
    assert [number for number, _ in BEGAN] == list(range(5))


@pytest.mark.parametrize("rate", [0.0, 0.04])
async def test_one_that_would_be_too_late_is_told_so(board: Board, rate: float) -> None:
    """With how many were before it, and when to try again; at once where that is known. It does not run."""
    host, client = await board.host(counted), await board.client()
    await client.admit("counted", rate, reason="it is a test")
    await limited(host)
    if rate:
        await client.run("counted", {"number": 1}, timeout=30)
    before = len(BEGAN)
    begun = time.monotonic()
    run = await client.submit("counted", {"number": 2}, deadline=12.0 if rate else 0.4)
    with pytest.raises(RunFailed) as failed:
        await client.result(run, SOON)
    if rate:
        assert time.monotonic() - begun < 12.0  # its deadline; its turn would come 25 s after the first
    error = failed.value.__cause__
    assert isinstance(error, Overloaded)
    assert error.fields["queue"] == 0
    assert 2.0 < error.fields["retry_after"] <= 30.0
    assert "it is a test" in str(error)
    assert len(BEGAN) == before


async def test_one_that_comes_in_time_waits_for_its_turn(board: Board) -> None:
    """That is what clients do by default: they have their result before their deadline."""
    host, client = await board.host(counted), await board.client()
    await client.admit("counted", 4.0)
    await limited(host)
    begun = time.monotonic()
    runs = [client.run("counted", {"number": n}, deadline=20.0, timeout=SOON) for n in range(3)]
    assert await asyncio.gather(*runs) == [0, 1, 2]
    assert max(at for _, at in BEGAN) - begun >= 0.4


async def test_the_workflows_own_time_counts_too(board: Board) -> None:
    """It runs from when the request was stored."""
    host, client = await board.host(timed), await board.client()
    await client.admit("timed", 0)
    await limited(host, workflow="timed")
    with pytest.raises(RunFailed) as failed:
        await client.run("timed", {"number": 1}, timeout=30)
    assert isinstance(failed.value.__cause__, Overloaded)
    assert BEGAN == []


async def test_what_was_accepted_goes_on_elsewhere_without_a_new_turn(board: Board) -> None:
    """A driver dies: what it had begun is taken over at once, what waited there waits elsewhere."""
    first, client = await board.host(gated), await board.client()
    run = await client.submit("gated", {"number": 1})
    await until(lambda: BEGAN)
    await client.admit("gated", 0)
    await limited(first, workflow="gated")
    waits = await client.submit("gated", {"number": 2})
    await until(lambda: door(first) == 1)
    second = await board.host(gated, waits_here)
    await board.kill(first)
    await until(lambda: [number for number, _ in BEGAN] == [1, 1])
    GATE.set()
    assert await client.result(run, SOON) == 1
    await until(lambda: door(second) == 1)
    await client.admit("gated", 5)
    assert await client.result(waits, SOON) == 2


async def test_a_run_that_wakes_up_needs_no_turn(board: Board) -> None:
    """It was accepted before it was put aside."""
    host, client = await board.host(parked, park_after=0.05), await board.client()
    run = await client.submit("parked", {"number": 7})
    await board.entries(run, "aside")
    await client.admit("parked", 0)
    await limited(host, workflow="parked")
    await client.signal(run, "go")
    assert await client.result(run, SOON) == 7


async def test_a_draining_driver_gives_back_what_waits(board: Board) -> None:
    """The next one has it at once."""
    first, client = await board.host(counted), await board.client()
    await client.admit("counted", 0)
    await limited(first)
    run = await client.submit("counted", {"number": 1})
    await until(lambda: door(first) == 1)
    second = await board.host(counted)
    await first.stop(grace=0.2)
    await until(lambda: door(second) == 1)
    await client.admit("counted", None)
    assert await client.result(run, SOON) == 1


async def test_what_waits_is_shared_with_a_driver_that_comes(board: Board) -> None:
    """Half of it, more or less, as the server gives it."""
    first, client = await board.host(counted), await board.client()
    await client.admit("counted", 0)
    await limited(first)
    for number in range(20):
        await client.submit("counted", {"number": number})
    await until(lambda: door(first) == 20)
    second = await board.host(counted)
    await until(lambda: door(second) > 0 and door(first) + door(second) == 20)


async def test_cancelling_what_waits(board: Board) -> None:
    """It ends at once, and never runs."""
    host, client = await board.host(counted), await board.client()
    await client.admit("counted", 0)
    await limited(host)
    run = await client.submit("counted", {"number": 1})
    await until(lambda: door(host) == 1)
    await client.cancel(run)
    assert (await client.done(run, SOON)).status == "cancelled"
    assert BEGAN == []


async def test_limits_are_followed_in_order_of_epochs(board: Board) -> None:
    """One that was decided earlier is passed over. Restarts keep it."""
    host, client, node = await board.host(counted), await board.client(), await board.node()
    for rate in range(1, 12):
        await client.admit("counted", float(rate))
        await until(lambda rate=rate: rate_of(host) == rate)  # type: ignore[misc]
    (limit,) = await client.admissions()
    for bad in (
        Admission("counted", 99.0, epoch=1),
        Admission("other", 1.0, epoch=9999),
        Admission("counted", -1.0),
    ):
        await node.store.stored(subjects.admission("counted"), msgspec.msgpack.encode(bad))
    await client.admit("another", 1.0)
    await limited(host, workflow="another")
    assert host.admissions.of("counted") == limit
    await client.admit("counted", 2.5)
    later = await board.host(counted)
    assert rate_of(later) == 2.5


async def test_drivers_come_and_die_and_nothing_is_lost(board: Board) -> None:
    """While requests wait in all of them; each run has its outcome."""
    hosts, client = [await board.host(counted), await board.host(counted)], await board.client()
    await client.admit("counted", 40.0)
    await limited(*hosts)
    runs = [await client.submit("counted", {"number": number}) for number in range(80)]
    ends = asyncio.gather(*(client.result(run, 2 * SOON) for run in runs))
    for round_ in range(1, 4):
        await until(lambda least=round_: len({number for number, _ in BEGAN}) > 15 * least)  # type: ignore[misc]
        hosts.append(await board.host(counted))
        await board.kill(hosts.pop(0))
    assert sorted(await ends) == list(range(80))
    await board.emptied("REQUESTS")


async def test_what_is_no_rate(board: Board) -> None:
    """It is refused where it is said."""
    client = await board.client()
    for rate in (-1.0, math.nan, math.inf):
        with pytest.raises(AdmissionInvalid):
            await client.admit("counted", rate)
