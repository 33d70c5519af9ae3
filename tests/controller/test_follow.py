"""The view is true: what hosts and drivers do is seen, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import numpy as np
import pytest
from tests.support.board import Board, instance
from tests.support.waiting import until

from callboard import options, tool, workflow
from callboard.controller.controller import Controller
from callboard.controller.reading import State
from callboard.controller.snapshot import snapshot
from callboard.controller.view import SESSION_IDLE, View
from callboard.infra import subjects
from callboard.infra.messages.registry import InstanceInfo, Pulse
from callboard.infra.messages.telemetry import Made, Report

GATE: asyncio.Event
CLOCKS = 0.05
"""Seconds that server and hosts may differ, and columns be rounded."""
CALM = 3.0
"""``dead_after`` of controllers: a machine that stands still for a moment is to make no host look dead."""


@tool(concurrency=2)
async def gated(number: int) -> int:
    """Wait for the gate."""
    await GATE.wait()
    return number


@tool
async def quick(number: int) -> int:
    """Return at once."""
    return number


@tool
async def adds(numbers: list[int]) -> int:
    """Add."""
    return sum(numbers)


@tool
async def broken() -> None:
    """Fail."""
    raise ValueError("it is broken")


@workflow
async def three() -> int:
    """Three calls, and one that waits for them."""
    with options(session="anna"):
        parts = [gated(number) for number in range(3)]
    return await adds([part.arg for part in parts])


@workflow
async def many(count: int) -> int:
    """Calls that are over at once."""
    return sum(await asyncio.gather(*(quick(number) for number in range(count))))


@workflow
async def failing() -> None:
    """One call that fails."""
    await broken()


@workflow
async def banded(count: int, priority: int) -> None:
    """Calls of one band that wait."""
    with options(priority=priority):
        await asyncio.gather(*(gated(number) for number in range(count)))


@pytest.fixture(autouse=True)
async def _shut() -> None:
    global GATE  # noqa: PLW0603 - of the test's own loop
    GATE = asyncio.Event()


@pytest.fixture
async def controller(board: Board) -> AsyncIterator[Controller]:
    """A controller that has begun before there is anybody."""
    async with Controller(board.settings(dead_after=CALM)) as controller:
        yield controller


def states(view: View) -> list[State]:
    """Where the futures stand."""
    return sorted(State(int(state)) for state in view.futures["state"][view.futures.rows])


BUSY = [State.ANNOUNCED, State.SENT, State.RUNNING, State.RUNNING]


async def test_what_is_open_is_seen(board: Board, controller: Controller) -> None:
    """Futures by state, with actor, session, run, maker and host; runs, sessions and instances beside them."""
    view = controller.view
    host = await board.host(gated, adds, three)
    begun = time.time() - CLOCKS
    run = await board.submit(three)
    await until(lambda: states(view) == BUSY)
    futures, row = view.futures, view.hosts.row(host.id)
    at = futures.row(f"{run}:1")
    assert begun <= futures["made"][at] <= futures["began"][at] + CLOCKS <= time.time() + 2 * CLOCKS
    assert futures["state"][at] == State.RUNNING
    assert view.actors.keys[futures["actor"][at]] == "gated"
    assert view.names.keys[futures["call"][at]] == "gated.call"
    assert view.sessions.keys[futures["session"][at]] == "anna"
    assert view.runs.keys[futures["run"][at]] == run
    assert (futures["creator"][at], futures["executor"][at]) == (row, row)
    last = futures.row(f"{run}:4")
    assert (futures["state"][last], futures["stage"][last]) == (State.ANNOUNCED, 2)
    running = view.runs.row(run)
    assert view.actors.keys[view.runs["workflow"][running]] == "three"
    assert view.runs["driver"][running] == row
    assert begun <= view.runs["began"][running] <= time.time() + CLOCKS
    instance = view.instances.row(f"gated@{host.id}")
    assert (view.instances["busy"][instance], view.instances["slots"][instance]) == (2, 2)
    GATE.set()
    assert (await board.done(run)).status == "completed"
    await until(lambda: view.actors["done"][view.actors.row("gated")] == 3)
    await until(lambda: view.actors["done"][view.actors.row("three")] == 1)
    await until(lambda: not len(futures) and not len(view.runs))


async def test_queues_are_seen_by_lane_and_band(board: Board, controller: Controller) -> None:
    """Of the shared lane, and of what waits in the mailbox of a host; of who is gone nothing is left."""
    view = controller.view
    host = await board.host(gated, banded, telemetry_every=0.05)
    client, pair = await board.client(), {"count": 3, "priority": 0}
    full = await board.submit(banded, **pair)
    await until(lambda: lengths(view, "any") == [0, 1, 0])
    await client.route("gated", host.id)
    await until(lambda: host.routes.choose("gated", "s", "r:1", keeps=False)[0] == host.id)
    runs = [
        await board.submit(banded, count=count, priority=rank) for count, rank in ((2, 5), (3, 0), (1, -5))
    ]
    await until(lambda: lengths(view, host.id) == [2, 3, 1])
    found = snapshot(view, time.time()).lanes
    assert {line.lane: line.mailbox for line in found if line.mailbox} == {
        f"gated.{host.id}.{band}": count for band, count in enumerate((2, 3, 1))
    }
    GATE.set()
    await asyncio.gather(*(board.done(run) for run in (full, *runs)))
    await until(lambda: lengths(view, host.id) == [0, 0, 0])
    assert [line for line in snapshot(view, time.time()).lanes if line.mailbox] == []
    await host.stop()
    await until(lambda: not len(view.lanes.where(host=0)))


def lengths(view: View, lane: str) -> list[int]:
    """The queue of each band in a lane of the actor ``gated``."""
    found = view.lanes.find(f"gated.{lane}.{band}" for band in subjects.BANDS)
    return [int(view.lanes["waiting"][row]) if row >= 0 else 0 for row in found]


async def test_the_keys_of_runs_are_seen(board: Board, controller: Controller) -> None:
    """For as long as there is a run, or a session, that has it; who begins later sees them, too."""
    view = controller.view
    await board.host(gated, adds, three)
    client = await board.client()
    keyed = await client.submit("three", {}, key="acme", session="chat")
    bare = await client.submit("three", {})
    await until(lambda: {keyed, bare} <= {view.runs.keys[row] for row in view.runs.where(driver=0)})
    async with Controller(board.settings(dead_after=CALM)) as later:
        await until(lambda: len(later.view.runs) == 2 and "acme" in later.view.keys)
        for one in (view, later.view):
            runs, sessions = one.runs, one.sessions
            assert one.keys.keys[runs["key"][runs.row(keyed)]] == "acme"
            assert one.keys.keys[sessions["key"][sessions.row("chat")]] == "acme"
            assert (runs["key"][runs.row(bare)], sessions["key"][sessions.row(bare)]) == (0, 0)
    GATE.set()
    await asyncio.gather(board.done(keyed), board.done(bare))
    await until(lambda: not len(view.runs))
    view.prune(time.time())
    assert "acme" in view.keys
    view.prune(time.time() + 2 * SESSION_IDLE)
    assert len(view.keys) == 1


async def test_what_has_ended_is_counted(board: Board, controller: Controller) -> None:
    """Calls that come and go between two reports are told of once, with how they ended."""
    view = controller.view
    await board.host(quick, broken, many, failing)
    assert await board.run(many, count=500) == 499 * 250
    await board.done(await board.submit(failing))
    actor, bad = view.actors.row("quick"), view.actors.row("broken")
    await until(lambda: view.actors["done"][actor] == 500 and view.actors["failed"][bad] == 1)
    assert view.actors["waited"][actor] > 0
    await until(lambda: not len(view.futures))


async def test_who_begins_later_sees_the_same(board: Board) -> None:
    """A controller that starts, or starts again, has the whole state within a moment."""
    host = await board.host(gated, adds, three)
    run = await board.submit(three)
    await until(lambda: instance(host, gated).slots.busy == 2)
    for _ in range(2):
        async with Controller(board.settings(dead_after=CALM)) as controller:
            await until(lambda: controller.complete)
            assert states(controller.view) == BUSY
            assert run in controller.view.runs
            assert host.id in controller.view.hosts
    GATE.set()
    await board.done(run)


async def test_who_stands_still_forgets_nobody(board: Board) -> None:
    """A controller that could not listen for a while does not take the silence for the death of all."""
    async with Controller(board.settings(dead_after=0.5)) as controller:
        connection, follower = controller.node.connection, controller._follower
        assert follower is not None
        gone: list[str] = []
        controller.view.host_gone = gone.append  # type: ignore[method-assign,assignment]

        def beat() -> None:
            body = msgspec.msgpack.encode(Pulse("far", time.time()))
            connection.publish(subjects.registry("host.far"), body)

        beat()
        await until(lambda: "far" in controller.view.hosts)
        time.sleep(0.7)  # noqa: ASYNC251 - the machine stands still
        beat()
        heard = follower._heard["far"]
        await until(lambda: follower._heard.get("far", heard) > heard)
        assert not gone


async def test_a_lost_report_is_made_up_for(board: Board, controller: Controller) -> None:
    """Whoever misses a number asks, and is told all; what has ended meanwhile goes."""
    view = controller.view
    host = await board.host(gated, adds, three, quick, many)
    first = await board.submit(three)
    await until(lambda: states(view) == BUSY)
    publish = host.node.connection.publish
    lost = []

    def losing(subject: str, body: bytes = b"", headers: bytes | None = None, reply: str = "") -> None:
        if subject.startswith("cb.telemetry."):
            lost.append(body)
        else:
            publish(subject, body, headers, reply)

    host.node.connection.publish = losing  # type: ignore[method-assign]
    GATE.set()
    await board.done(first)
    GATE.clear()
    second = await board.submit(three)
    sequence = host.telemetry._sequence
    await until(lambda: host.telemetry._sequence > sequence + 2)
    assert lost
    assert f"{first}:1" in view.futures
    host.node.connection.publish = publish  # type: ignore[method-assign]
    await until(lambda: states(view) == BUSY and second in view.runs)
    assert f"{first}:1" not in view.futures
    GATE.set()
    await board.done(second)


async def test_what_a_dead_host_had_is_released(board: Board, controller: Controller) -> None:
    """Its calls run nowhere until somebody else has them; its instances are gone."""
    view = controller.view
    driver = await board.host(adds, three)
    dying = await board.host(gated)
    run = await board.submit(three)
    await until(lambda: states(view) == BUSY)
    await board.kill(dying)
    await until(lambda: dying.id not in view.hosts)
    assert f"gated@{dying.id}" not in view.instances
    assert states(view) == [State.ANNOUNCED, State.SENT, State.SENT, State.SENT]
    other = await board.host(gated)
    await until(lambda: states(view) == BUSY)
    executors = view.futures["executor"][view.futures.where(state=State.RUNNING)]
    assert set(executors.tolist()) == {view.hosts.row(other.id)}
    assert view.futures["creator"][view.futures.row(f"{run}:1")] == view.hosts.row(driver.id)
    GATE.set()
    await board.done(run)


@pytest.mark.parametrize("room", [1 << 20, 1500])
async def test_a_whole_state_comes_in_parts(
    board: Board, controller: Controller, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """A large one is cut up, by rows and by what the server takes, and other work goes on between its parts."""
    monkeypatch.setattr("callboard.actors.telemetry._CHUNK", 20)
    node = await board.node()
    told: list[Report] = []
    decode = msgspec.msgpack.Decoder(Report).decode
    node.connection.subscribe("cb.telemetry.>", lambda _s, _r, body, _h: told.append(decode(body)))
    host = await board.host(gated, adds, waits)
    run = await board.submit(waits, count=50)
    view = controller.view
    await until(lambda: len(view.futures) == 50)
    monkeypatch.setattr(type(host.node.store), "max_body", room)
    del told[:]
    host.telemetry.tell()
    await until(lambda: any(report.last for report in told))
    parts = [report.part for report in told if report.part]
    assert parts == list(range(1, len(parts) + 1))
    assert (len(parts) == 3) == (room > 1500)
    await until(lambda: view.hosts["sequence"][view.hosts.row(host.id)] >= told[-1].sequence)
    assert len(view.futures) == 50
    GATE.set()
    await board.done(run)
    await until(lambda: not len(view.futures))


@workflow
async def waits(count: int) -> int:
    """So many calls at once."""
    return sum(await asyncio.gather(*(gated(number) for number in range(count))))


async def test_a_host_without_telemetry_is_seen_by_its_heartbeat(
    board: Board, controller: Controller
) -> None:
    """The setting turns it off: nothing is published, and calls run as ever."""
    view = controller.view
    host = await board.host(quick, many, telemetry_every=0.0)
    assert await board.run(many, count=20) == 190
    await until(lambda: f"quick@{host.id}" in view.instances)
    assert view.hosts["sequence"][view.hosts.row(host.id)] == 0
    assert (await board.stream("TELEMETRY"))["messages"] == 0


async def test_rubbish_changes_nothing(board: Board, controller: Controller) -> None:
    """Anybody may publish there."""
    view = controller.view
    await board.host(gated, adds, three)
    run = await board.submit(three)
    await until(lambda: states(view) == BUSY)
    node = await board.node()
    uneven = Report("nobody", 1, time.time(), names=["a.b"], made=Made(["r:1"], sent=b"\0\0\0"))
    unnamed = Report("nobody", 2, time.time(), made=Made(["r:1"], sent=bytes(4), call=b"\7\0\0\0"))
    others = Report("somebody", 3, time.time())
    known = [msgspec.msgpack.encode(report) for report in (uneven, unnamed, others)]
    for body in (b"", b"\xc1", b"\x80", b"\x93\x01\x02\x03", b"rubbish", *known):
        node.connection.publish("cb.telemetry.nobody", body)
    await node.connection.flush()
    await until(lambda: "nobody" in view.hosts)
    GATE.set()
    await board.done(run)
    await until(lambda: not len(view.futures))
    assert "somebody" not in view.hosts
    await until(lambda: "nobody" not in view.hosts)
    assert controller.complete
    assert np.count_nonzero(view.hosts["alive"]) == 1


async def test_a_host_that_only_others_tell_of_is_forgotten(board: Board, controller: Controller) -> None:
    """A driver may tell late of what it has sent to a host that is dead already."""
    view, node = controller.view, await board.node()
    names = ["quick.call", "h-gone", ""]
    number = np.array([0, 1, 2], "<u4")
    made = Made(
        ["r:1"],
        sent=np.zeros(1, "<f4").tobytes(),
        call=number[:1].tobytes(),
        session=number[2:].tobytes(),
        workflow=number[2:].tobytes(),
        lane=number[1:2].tobytes(),
        band=b"\1",
        priority=b"\0\0",
        stage=b"\0\0",
    )
    told = Report("h-driver", 1, time.time(), names=names, made=made)
    node.connection.publish("cb.telemetry.h-driver", msgspec.msgpack.encode(told))
    await until(lambda: "h-gone" in view.hosts)
    await until(lambda: not len(view.hosts))


def test_an_instance_that_no_report_tells_of_is_known_by_the_heartbeat() -> None:
    """Of a host that hangs a controller that has come since hears reports of before, and nothing but heartbeats."""
    view = View()
    view.take(Report("h-1", 7, time.time()))
    beat = Pulse("h-1", time.time(), pid=5, node="n", instances={"a": InstanceInfo(busy=1, slots=2)})
    view.pulse(beat)
    row = view.instances.row("a@h-1")
    assert (view.instances["busy"][row], view.instances["slots"][row]) == (1, 2)
    beat.instances["a"].busy = 2
    view.pulse(beat)
    assert view.instances["busy"][row] == 1  # reports know better


async def test_a_lost_part_of_a_whole_state_is_asked_for(board: Board) -> None:
    """The second of four parts is lost with the host's connection: what was told is not the whole."""
    async with Controller(board.settings(dead_after=60.0)) as controller:
        node = await board.node()
        asked: list[bytes] = []
        node.connection.subscribe(
            subjects.control("h-source"), lambda subject, reply, data, head: asked.append(data)
        )
        await node.connection.flush()

        def tell(sequence: int, part: int = 0, *, last: bool = False) -> None:
            report = Report("h-source", sequence, time.time(), part=part, last=last)
            node.connection.publish(subjects.telemetry("h-source"), msgspec.msgpack.encode(report))

        tell(5)  # nobody has heard of it before
        await until(lambda: asked)
        tell(6, part=1)
        tell(8, part=3)
        tell(9, part=4, last=True)
        await until(lambda: len(asked) == 2)
        assert not controller.complete
        tell(10, part=1)
        tell(11, part=2, last=True)
        await until(lambda: controller.complete)
