"""What a host tells of itself: complete, bounded, and never in the way of what it tells of."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import msgspec
import pytest
import structlog
from tests.support.board import Board, instance
from tests.support.waiting import eventually, until

from callboard import ManagedList, agent, method, options, tool, workflow
from callboard.actors import reports
from callboard.actors.host import Host
from callboard.actors.reports import Rows
from callboard.infra import subjects
from callboard.infra.messages.telemetry import MOVED, Report
from callboard.state.accounts import key_of

GATE: asyncio.Event


@tool
async def noop(number: int) -> int:
    """Return at once."""
    return number


@tool(retries=1, backoff=0.01)
async def twice(number: int) -> int:
    """Fail."""
    raise ValueError(str(number))


@workflow
async def many(count: int) -> int:
    """So many calls at once."""
    return sum(await asyncio.gather(*(noop(number) for number in range(count))))


@workflow
async def waits_long() -> None:
    """Until the gate is open."""
    await GATE.wait()


@workflow
async def tries() -> None:
    """One call that is tried again, and fails."""
    await twice(1)


@agent
class Notes:
    """Keeps lines."""

    lines: ManagedList[str]

    @method
    async def note(self, line: str) -> int:
        """Keep one."""
        self.lines.append(line)
        return len(self.lines)


@workflow
async def notes(session: str) -> int:
    """One line."""
    with options(session=session):
        return await Notes.note("a")


async def listen(board: Board) -> list[Report]:
    """What all hosts tell from now on."""
    node = await board.node()
    told: list[Report] = []
    decode = msgspec.msgpack.Decoder(Report).decode
    node.connection.subscribe("cb.telemetry.>", lambda _s, _r, data, _h: told.append(decode(data)))
    await node.connection.flush()
    return told


async def flush(host: Host, told: list[Report]) -> None:
    """Let a host tell what is new, and hear it."""
    host.telemetry.flush()
    last = host.id, host.telemetry._sequence
    await until(lambda: last in {(report.source, report.sequence) for report in told})


def ended(told: list[Report]) -> list[str]:
    """The futures of attempts that have ended, in the order in which that was told."""
    return [future for report in told if report.ended is not None for future in report.ended.future]


async def test_every_attempt_is_told_of_once(board: Board) -> None:
    """With numbers without gaps; the stream has them all."""
    told = await listen(board)
    host = await board.host(noop, many)
    run = await board.submit(many, count=300)
    await board.done(run)
    await until(lambda: len(ended(told)) == 300)
    assert sorted(ended(told)) == sorted(f"{run}:{number}" for number in range(1, 301))
    assert [report.sequence for report in told] == list(range(1, len(told) + 1))
    assert {report.source for report in told} == {host.id}
    node = await board.node()

    async def all_stored() -> bool:
        return len(await node.reader.read(subjects.TELEMETRY, subjects.telemetry(host.id))) >= len(told)

    await eventually(all_stored)


async def test_how_attempts_end(board: Board) -> None:
    """One that is repeated is told apart from one that failed for good; that is told at once."""
    told = await listen(board)
    await board.host(twice, tries, telemetry_every=120.0)
    await board.done(await board.submit(tries))
    await until(lambda: len(ended(told)) == 2)
    how = b"".join(report.ended.how for report in told if report.ended is not None)
    attempts = b"".join(report.ended.attempt for report in told if report.ended is not None)
    assert how == bytes([2, 1])
    assert attempts == b"\x01\x00\x02\x00"


@tool(concurrency=1)
async def takes_a_while() -> None:
    """Longer than it takes to ask for the next."""
    await asyncio.sleep(0.1)


@workflow
async def takes_many(count: int) -> None:
    """At once."""
    await asyncio.gather(*(takes_a_while() for _ in range(count)))


async def test_what_others_have_taken_waits_no_more(board: Board) -> None:
    """Whoever heard at the last delivery that there was more hears it when that is gone."""
    hosts = [await board.host(takes_a_while, telemetry_every=0.05) for _ in range(3)]
    await board.host(takes_many)
    members = [instance(host, takes_a_while) for host in hosts]
    run = await board.submit(takes_many, count=10)
    await until(lambda: sum(member.info().waiting for member in members) > 0)
    await board.done(run)
    await until(lambda: sum(sum(member.waiting()) + member.info().waiting for member in members) == 0)


async def test_a_session_that_moves_is_told_of(board: Board) -> None:
    """Though no call of it was there: which, where to and why; what-if counts it."""
    told = await listen(board)
    first = await board.host(Notes, notes)
    assert await board.run(notes, session="s") == 1
    second = await board.host(Notes)
    await until(lambda: first.watch.serves(second.id, "Notes"))
    await (await board.client()).migrate("s", "Notes", destination=second.id)
    await until(lambda: any(report.sessions_moved is not None for report in told))
    (report,) = [report for report in told if report.sessions_moved is not None]
    moved = report.sessions_moved
    assert moved is not None
    columns = (moved.actor, moved.session, moved.host)
    (row,) = zip(*(struct.iter_unpack("<I", column) for column in columns), strict=True)
    assert report.source == first.id
    assert [report.names[place] for (place,) in row] == ["Notes", "s", second.id]
    assert MOVED[moved.why[0]] == "migrated"


async def test_a_call_that_is_passed_on_is_told_of(board: Board) -> None:
    """To whose lane, and why, and at once."""
    told = await listen(board)
    first = await board.host(Notes, notes)
    assert await board.run(notes, session="s") == 1
    second = await board.host(Notes, telemetry_every=120.0)
    await until(lambda: second.watch.serves(first.id, "Notes"))
    instance(first, Notes).pause()  # so that the second one gets the call
    first.caller._holders.clear()
    run = await board.submit(notes, session="s")
    await until(lambda: any(report.moved is not None for report in told))
    (report,) = [report for report in told if report.moved is not None]
    assert report.source == second.id
    assert report.moved is not None
    assert report.moved.future == [f"{run}:1"]
    assert report.names[report.moved.lane[0]] == first.id
    assert report.moved.why == b"\x01"
    assert (await board.done(run)).status == "completed"


@tool(concurrency=1)
async def busy(number: int) -> int:
    """Wait for the gate, but only the first."""
    if number == 0:
        await GATE.wait()
    return number


@workflow
async def addressed(host: str, first: int, last: int) -> int:
    """Calls in a host's lane."""
    with options(host=host):
        return sum(await asyncio.gather(*(busy(number) for number in range(first, last))))


async def test_stolen_calls_are_told_of(board: Board) -> None:
    """By the host they were taken from: who has them now, while they are not done yet."""
    global GATE  # noqa: PLW0603 - of the test's own loop
    GATE = asyncio.Event()
    told = await listen(board)
    await board.host(addressed)
    victim = await board.host(busy)
    first = await board.submit(addressed, host=victim.id, first=0, last=1)
    await until(lambda: instance(victim, busy).slots.busy == 1)
    idle = await board.host(busy)
    run = await board.submit(addressed, host=victim.id, first=1, last=21)
    assert (await board.done(run)).status == "completed"

    def stolen() -> set[str]:
        return {
            future
            for report in told
            if report.moved is not None and report.source == victim.id
            for future, lane, why in zip(
                report.moved.future,
                struct.iter_unpack("<I", report.moved.lane),
                report.moved.why,
                strict=True,
            )
            if why == MOVED.index("stolen") and report.names[lane[0]] == idle.id
        }

    await until(lambda: len(stolen()) == 20)
    assert stolen() == {f"{run}:{number}" for number in range(1, 21)}
    GATE.set()
    assert (await board.done(first)).status == "completed"


@tool(concurrency=1000)
async def crowded(number: int) -> int:
    """Wait for the gate."""
    await GATE.wait()
    return number


@workflow
async def many_crowded(count: int) -> int:
    """So many calls at once, behind the gate."""
    return sum(await asyncio.gather(*(crowded(number) for number in range(count))))


@pytest.mark.parametrize(("count", "at_once"), [(500, True), (501, False)])
async def test_a_burst_is_told_of_when_it_has_lasted(board: Board, count: int, *, at_once: bool) -> None:
    """Of very many calls those are told of that are there still when the next report is due, and none twice."""
    global GATE  # noqa: PLW0603 - of the test's own loop
    GATE = asyncio.Event()
    works = await board.host(crowded, telemetry_every=120.0)
    drives = await board.host(many_crowded, telemetry_every=120.0)
    told = await listen(board)
    run = await board.submit(many_crowded, count=count)
    await until(lambda: instance(works, crowded).slots.busy == count)

    async def flushed() -> tuple[int, int]:
        for host in (drives, works):
            await flush(host, told)
        made = sum(len(report.made.future) for report in told if report.made is not None)
        return made, sum(len(report.running.future) for report in told if report.running is not None)

    assert await flushed() == ((count, count) if at_once else (0, 0))
    assert await flushed() == (count, count)
    assert await flushed() == (count, count)
    GATE.set()
    assert (await board.done(run)).status == "completed"
    await flushed()
    assert [report.gone for report in told if report.gone] == []


async def test_what_cannot_be_told_hurts_nobody(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error on the way to a report is logged, and calls run as ever."""

    def broken(*_: object) -> None:
        raise ValueError("it cannot be packed")

    monkeypatch.setattr(reports, "fill", broken)
    with structlog.testing.capture_logs() as logs:
        host = await board.host(noop, many)
        assert await board.run(many, count=50) == 1225
        await until(lambda: any(entry["event"] == "telemetry_failed" for entry in logs))
        await host.stop()


async def test_large_reports_are_cut_up(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is larger than the server takes."""
    told = await listen(board)
    host = await board.host(noop, many)
    monkeypatch.setattr(type(host.node.store), "max_body", 4000)
    run = await board.submit(many, count=500)
    await board.done(run)
    await until(lambda: len(ended(told)) == 500)
    assert max(len(msgspec.msgpack.encode(report)) for report in told) <= 4000
    assert [report.sequence for report in told] == list(range(1, len(told) + 1))


def test_rows_in_pieces() -> None:
    """Nothing is lost or doubled, however they are cut."""
    names: dict[str, Any] = {"closed": [str(n) for n in range(5)], "gone": ["x"], "queues": list(range(12))}
    rows = Rows(**names)
    for pieces in (list(rows.chunks(5)), list(rows.halves()), list(rows.chunks(100))):
        for name, values in names.items():
            assert [value for piece in pieces for value in getattr(piece, name)] == values
    assert len(list(Rows().chunks(5))) == 1


async def test_keys_of_runs_are_told(board: Board) -> None:
    """When they begin and when they have ended; no column where no run has one."""
    told = await listen(board)
    await board.host(waits_long, noop, many, telemetry_every=0.05)
    client = await board.client()
    global GATE  # noqa: PLW0603 - the workflow waits for it
    GATE = asyncio.Event()
    await board.run(many, count=1)
    runs = {}
    for key in ("acme/7", "umlaut ä", None):
        runs[await client.submit("waits_long", {}, key=key)] = key or ""
    await until(lambda: runs.keys() <= keys_of(told, "runs_begun").keys())
    found = keys_of(told, "runs_begun")
    assert {run: found[run] for run in runs} == runs
    GATE.set()
    await until(lambda: runs.keys() <= keys_of(told, "runs_ended").keys())
    found = keys_of(told, "runs_ended")
    assert {run: found[run] for run in runs} == runs
    assert next(report.runs_ended for report in told if report.runs_ended is not None).key == b""


def keys_of(told: list[Report], what: str) -> dict[str, str]:
    """The keys of the runs of which was told that they have begun, or ended."""
    found: dict[str, str] = {}
    for report in told:
        column = getattr(report, what)
        if column is not None:
            places = struct.unpack(f"<{len(column.run)}I", column.key) if column.key else None
            keys = [report.names[place] for place in places] if places else [""] * len(column.run)
            found |= dict(zip(column.run, keys, strict=True))
    return found


@pytest.mark.parametrize(
    ("charged", "key"),
    [("", ""), ("run", ""), ("run,key.acme,key.b", "acme"), ("key.=w6Q", "ä"), ("key.=A", "=A")],
)
def test_the_key_of_a_header(charged: str, key: str) -> None:
    """The first; what cannot be read is taken as it is."""
    assert key_of(charged) == key


async def test_deadlines_of_runs_are_told(board: Board) -> None:
    """As the seconds that are left; no column where no run has one."""
    host, client = await board.host(waits_long, telemetry_every=0.05), await board.client()
    told: list[Report] = []
    host.node.connection.subscribe(
        subjects.telemetry(host.id),
        lambda _, __, data, ___: told.append(msgspec.msgpack.decode(data, type=Report)),
    )
    global GATE  # noqa: PLW0603 - the workflow waits for it
    GATE = asyncio.Event()
    first = await client.submit("waits_long", {})
    await until(lambda: [one for one in told if one.runs_begun and first in one.runs_begun.run])
    second = await client.submit("waits_long", {}, deadline=60.0)
    await until(lambda: [one for one in told if one.runs_begun and second in one.runs_begun.run])
    begun = {
        run: report.runs_begun.deadline
        for report in told
        if report.runs_begun
        for run in report.runs_begun.run
    }
    assert begun[first] == b""
    (left,) = struct.unpack("<f", begun[second])
    assert 50 < left < 60
    GATE.set()
