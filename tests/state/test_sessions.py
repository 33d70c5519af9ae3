"""Sessions: one writer, exactly once, kept and removed as their actor says."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.state.conftest import Join, Process
from tests.support.state import Actor, Crash, CrashingShelf
from tests.support.waiting import until

from callboard.infra.direct import Stored
from callboard.infra.errors import (
    Fenced,
    RequestTimeout,
    StateDamaged,
    StateIncompatible,
    StateTooLarge,
    StoreRefused,
)
from callboard.infra.settings import Settings
from callboard.state import packing
from callboard.state.dicts import ManagedDict
from callboard.state.lists import ManagedList
from callboard.state.managed import Managed, ManagedCounter, within
from callboard.state.session import Rules, Session
from callboard.state.sessions import KEPT, Sessions
from callboard.state.shelf import Place, Shelf
from callboard.state.states import States
from callboard.state.tree import Unread, cells

PLACE = Place("Desk", "s")


class Note(msgspec.Struct):
    """An item."""

    text: str
    stars: int = 0


class Desk:
    """One attribute of each kind."""

    items: ManagedList[str]
    notes: ManagedDict[str, Note]
    best: Managed[Note | None]
    count: ManagedCounter


def actor(process: Process, cls: type[Any] = Desk, **rules: Any) -> Actor:
    """The actor in a process."""
    made = Actor(cls, CrashingShelf(process.shelf), process.settings, **rules)
    made.name = "Desk"  # whatever the class is called
    return made


async def subjects_left(process: Process) -> list[str]:
    """The subjects of all that is stored of any state."""
    answer = await process.topology.api("STREAM.INFO.KV_cb_state", {"subjects_filter": ">"})
    return sorted(answer["state"].get("subjects") or {})


# -- one writer ------------------------------------------------------------------------------------


async def test_what_is_committed_is_there_for_another_process(process: Process, join: Join) -> None:
    """All kinds, with what was done to items that were fetched or assigned."""
    desk = actor(process)
    async with desk.call("c1"):
        desk.agent.items += ["a", "b"]
        desk.agent.notes["x"] = note = Note("one")
        note.stars = 3
        desk.agent.best = note
        desk.agent.count += 7
    async with desk.call("c2"):
        desk.agent.notes["x"].text += "!"
    other = actor(await join())
    async with other.call():
        assert other.agent.items == ["a", "b"]
        assert other.agent.notes == {"x": Note("one!", 3)}
        assert (other.agent.best, other.agent.count) == (Note("one", 3), 7)


async def test_opening_a_session_never_waits_on_the_event_loop(
    process: Process, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its last call has changed a long list in several places, far from what is read."""
    desk = actor(process)
    async with desk.call("c1"):
        desk.agent.items.extend(f"{number:4} {'x' * 1000}" for number in range(300))
    for number in range(40):
        async with desk.call(f"d{number}"):
            desk.agent.count += 1
    async with desk.call("c2"):
        del desk.agent.items[2:6]
        desk.agent.items.append("last")
        del desk.agent.items[-1]
        desk.agent.items[6:100] = ["new"]
        del desk.agent.items[20:60]
        expected = list(desk.agent.items)
    other = await join()

    def blocks(*_: Any) -> dict[str, bytes]:
        raise AssertionError("the event loop would wait for this")

    monkeypatch.setattr(other.shelf, "load_now", blocks)
    opened = actor(other)
    await opened.open()
    monkeypatch.undo()
    async with opened.call():
        await opened.agent.items.load()
        assert list(opened.agent.items) == expected


async def test_the_commit_of_a_stale_holder_fails_and_leaves_nothing(process: Process, join: Join) -> None:
    """Neither in the state nor in the store, however much it has written ahead."""
    old, new = actor(process), actor(await join())
    async with old.call("c1"):
        old.agent.items.append("first")
    async with new.call("c2"):
        new.agent.items.append("second")
    before = await subjects_left(process)
    with pytest.raises(Fenced):
        async with old.call("c3"):
            old.agent.items.extend(["x" * 1000] * 500)
    assert (await old.open()).lost is False  # opened anew
    await old.sessions.idle()
    assert await subjects_left(process) == before
    async with old.call():
        assert old.agent.items == ["first", "second"]


async def test_whoever_takes_a_session_fences_its_holder(process: Process, join: Join) -> None:
    """Taking it is one write; the epoch tells how often it was taken."""
    old, new = actor(process), actor(await join())
    await (await old.open()).take("host-1")
    session = await new.open()
    await session.take("host-2")
    assert (session.epoch, session.holder) == (2, "host-2")
    with pytest.raises(Fenced):
        async with old.call("c1"):
            old.agent.count += 1


async def test_a_commit_that_is_sent_again_after_a_lost_ack_is_one(process: Process) -> None:
    """The second is fenced by the first, and taken for what it is."""
    kept = process.shelf
    sequence = await kept.commit(PLACE, b"body", 0)
    assert await kept.commit(PLACE, b"body", 0) == sequence
    with pytest.raises(Fenced):
        await kept.commit(PLACE, b"other", 0)


async def test_a_call_that_raises_leaves_the_state_as_it_was(process: Process) -> None:
    """Also what it did to items in place."""
    desk = actor(process)
    async with desk.call():
        desk.agent.notes["x"] = Note("one")

    async def handler() -> None:
        async with desk.call("c1"):
            desk.agent.notes["x"].text = "changed"
            desk.agent.items.append("more")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await handler()
    async with desk.call():
        assert (desk.agent.notes, desk.agent.items) == ({"x": Note("one")}, [])
    assert await (await desk.open()).applied("c1") is None


async def test_sessions_are_apart_and_run_at_once(process: Process) -> None:
    """One instance serves many sessions, each call seeing its own."""
    desk = actor(process)
    begun = asyncio.Barrier(5)

    async def call(session: str) -> None:
        async with desk.call("c", session):
            await begun.wait()
            desk.agent.items.append(session)
            await asyncio.sleep(0)
            assert desk.agent.items == [session]

    await asyncio.gather(*(call(f"session {number}") for number in range(5)))
    async with desk.call("", "session 3"):
        assert desk.agent.items == ["session 3"]


async def test_a_session_that_is_held_reads_nothing(process: Process) -> None:
    """Between its calls it stays open."""
    desk = actor(process)
    async with desk.call():
        desk.agent.items.extend(["x" * 100] * 1000)
    before = desk.shelf.reads
    for number in range(3):
        async with desk.call(f"c{number}"):
            assert len(list(desk.agent.items)) == 1000
    assert desk.shelf.reads == before


# -- exactly once ----------------------------------------------------------------------------------


async def test_the_result_of_an_applied_call_is_found(process: Process, join: Join) -> None:
    """By whoever opens the session later, for as many commits as are kept."""
    desk = actor(process)
    for number in range(100):
        async with desk.call(f"c{number}", result={"number": number}):
            desk.agent.count += 1
    session = await actor(await join()).open()
    for number in range(100 - process.settings.state_history // 2, 100):
        found = await session.applied(f"c{number}")
        assert found is not None
        assert msgspec.msgpack.decode(found) == {"number": number}
    assert await session.applied("c0") is None
    assert await session.applied("c100") is None


async def test_a_call_whose_result_is_not_kept_any_more_is_never_taken_for_new(process: Process) -> None:
    """It is a typed error: running it again would do it twice."""
    desk = actor(process)
    async with desk.call("c1"):
        desk.agent.count += 1
    for _ in range(process.settings.state_history):
        async with desk.call():
            desk.agent.count += 1
    with pytest.raises(StateDamaged, match="was applied"):
        await (await desk.open()).applied("c1")


@pytest.mark.parametrize("taken", [False, True], ids=["held still", "taken meanwhile"])
@pytest.mark.parametrize("lags", [0, 2])
async def test_a_commit_whose_ack_was_lost_is_stored(
    process: Process, join: Join, monkeypatch: pytest.MonkeyPatch, *, taken: bool, lags: int
) -> None:
    """It is sent again, and fenced by itself: what its head refers to stays, whatever a server lags behind."""
    desk, other = actor(process), actor(await join())
    async with desk.call("c1"):
        desk.agent.count += 1
    real, read = process.store.stored, process.reader.read
    missing = [True] * lags

    async def lost(subject: str, *args: Any, **options: Any) -> int:
        sequence = await real(subject, *args, **options)
        if subject.endswith(".s"):
            monkeypatch.setattr(process.store, "stored", real)
            if taken:
                await (await other.open()).take("host-2")
            return await real(subject, *args, **options)
        return sequence

    async def late(stream: str, subject: str, *args: Any, **options: Any) -> list[Stored]:
        if missing and subject.endswith(".s"):
            missing.pop()
            return []
        return await read(stream, subject, *args, **options)

    monkeypatch.setattr(process.store, "stored", lost)
    monkeypatch.setattr(process.reader, "read", late)
    async with desk.call("c2"):
        desk.agent.items += ["x" * 1000] * 500
    assert missing == []
    if taken:
        with pytest.raises(Fenced):
            async with desk.call("c3"):
                desk.agent.count += 1
    await desk.sessions.idle()
    async with actor(await join()).call() as turn:
        assert turn.session.version == (3 if taken else 2)
    late_comer = actor(await join())
    async with late_comer.call():
        assert list(late_comer.agent.items) == ["x" * 1000] * 500


async def test_whether_a_commit_is_stored_may_not_be_known(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing that it refers to is removed."""
    desk = actor(process)
    async with desk.call("c1"):
        desk.agent.count += 1
    real, read = process.store.stored, process.reader.read

    async def lost(subject: str, *args: Any, **options: Any) -> int:
        sequence = await real(subject, *args, **options)
        return await real(subject, *args, **options) if subject.endswith(".s") else sequence

    async def never(stream: str, subject: str, *args: Any, **options: Any) -> list[Stored]:
        return [] if subject.endswith(".s") else await read(stream, subject, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(process.store, "stored", lost)
        patched.setattr(process.reader, "read", never)
        with pytest.raises(RequestTimeout, match="lags behind"):
            async with desk.call("c2"):
                desk.agent.items += ["x" * 1000] * 500
    await desk.sessions.idle()
    assert (await desk.open()).has_applied("c2")
    async with desk.call("c3"):
        assert list(desk.agent.items) == ["x" * 1000] * 500


class Meanwhile(CrashingShelf):
    """A shelf on which something happens once, just before what it has is read."""

    def __init__(self, shelf: Shelf, happens: Callable[[], Awaitable[None]]) -> None:
        super().__init__(shelf)
        self.happens: Callable[[], Awaitable[None]] | None = happens

    async def commits(self, place: Place, after: int = 0) -> list[Stored]:
        """See :class:`Shelf`."""
        happens, self.happens = self.happens, None
        if happens is not None:
            await happens()
        return await self._shelf.commits(place, after)


async def _rewrite(desk: Actor, times: int = 20) -> None:
    """Have nothing left of what was stored before."""
    for _ in range(times):
        async with desk.call():
            desk.agent.items = [f"{desk.agent.count}" * 200] * 200
            desk.agent.count += 1
        await desk.sessions.idle()


# -- at rest ---------------------------------------------------------------------------------------


async def test_a_session_that_rests_is_opened_with_one_read(process: Process, join: Join) -> None:
    """Its state is stored whole once nothing has been written for a while; what ran is known still."""
    desk = actor(process)
    desk.sessions.start()
    for number in range(20):
        async with desk.call(f"c{number}", result=number):
            desk.agent.items.append(f"{number}")
    await desk.sessions.rested()
    await desk.sessions.stop()
    assert (await desk.open()).version == 21
    other = actor(await join())
    session = await other.open()
    assert other.shelf.reads == 1
    with within(session.begin()):
        assert other.agent.items == [str(number) for number in range(20)]
    session.rollback()
    assert other.shelf.reads == 1
    assert session.untold is None
    assert bytes(await session.applied("c19") or b"") == msgspec.msgpack.encode(19)


async def test_a_session_is_not_folded_before_its_outcome_is_told(process: Process) -> None:
    """Whoever opens it tells the last commit's outcome, so that has to stay the last one."""
    desk = actor(process)
    for number in range(20):
        async with desk.call(f"c{number}"):
            desk.agent.count += 1
    session = await desk.open()
    now = time.monotonic()
    assert session.rests(now)
    session.told = asyncio.Event()
    assert not session.rests(now)
    session.told.set()
    assert session.rests(now)
    assert not session.rests(session.committed_at - 0.1)
    session.begin()
    assert not session.rests(now)
    session.rollback()
    assert session.rests(now)
    await session.take("host-2")  # who may have read it already
    assert not session.rests(time.monotonic())


async def test_a_call_may_begin_while_its_session_is_folded(process: Process, join: Join) -> None:
    """Its commit comes after that, and so does whoever takes the session."""
    desk = actor(process)
    for number in range(20):
        async with desk.call(f"c{number}"):
            desk.agent.items.append(f"{number}")
    session = await desk.open()
    folding = asyncio.create_task(session.fold())
    await asyncio.sleep(0)
    async with desk.call("c20"):
        assert not folding.done()
        desk.agent.items.append("20")
    assert folding.done()
    again = asyncio.create_task(session.fold())
    await asyncio.sleep(0)
    await session.take("host-2")
    assert again.done()
    assert (session.version, session.lost) == (24, False)
    other = actor(await join())
    async with other.call():
        assert other.agent.items == [str(number) for number in range(21)]


async def test_who_has_lost_a_session_folds_nothing(process: Process, join: Join) -> None:
    """Its holder goes on, and nothing is left of the attempt."""
    old, new = actor(process), actor(await join())
    for number in range(20):
        async with old.call(f"c{number}"):
            old.agent.items.append("x" * 300)
    stale = await old.open()
    async with new.call("d"):
        new.agent.count += 1
    before = await subjects_left(process)
    with pytest.raises(Fenced):
        await stale.fold()
    await old.sessions.idle()
    assert stale.lost
    assert await subjects_left(process) == before
    async with new.call("e"):
        new.agent.count += 1
    async with old.call():
        assert (old.agent.count, len(old.agent.items)) == (2, 20)


class Held(CrashingShelf):
    """A shelf that keeps one request waiting, and may refuse it then.

    Attributes:
        request: its name, until it comes; entered: it has come.
        let: set it to let it go on; error: it is refused with that.
    """

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf)
        self.request = ""
        self.error: Exception | None = None
        self.hold("")

    def hold(self, request: str, error: Exception | None = None) -> None:
        """Keep the next request of that name waiting."""
        self.request, self.error = request, error
        self.entered, self.let = asyncio.Event(), asyncio.Event()

    async def _held(self, request: str) -> None:
        if request == self.request:
            self.request = ""
            self.entered.set()
            await self.let.wait()
            if self.error is not None:
                raise self.error

    async def commit(self, place: Place, body: bytes, after: int, *args: Any, **options: Any) -> int:
        """See :class:`Shelf`."""
        await self._held("commit")
        return await super().commit(place, body, after, *args, **options)

    async def store(self, place: Place, parts: Mapping[str, bytes], ttl: int = 0) -> None:
        """See :class:`Shelf`."""
        await self._held("store")
        await super().store(place, parts, ttl)

    async def parts_after(self, place: Place, after: int) -> list[tuple[str, int]]:
        """See :class:`Shelf`."""
        await self._held("parts_after")
        return await self._shelf.parts_after(place, after)


def held(process: Process, most: int = KEPT) -> tuple[Actor, Held]:
    """An actor on a shelf that may keep a request waiting."""
    desk = actor(process)
    desk.shelf = shelf = Held(process.shelf)
    desk.sessions = Sessions(shelf, process.settings, most)
    return desk, shelf


async def _fill(desk: Actor, session: str = "s", size: int = 300) -> None:
    for number in range(20):
        async with desk.call(f"{session}{number}", session):
            desk.agent.items.append("x" * size)


@pytest.mark.parametrize("write", ["store", "parts_after", "commit"])
async def test_what_could_not_be_stored_is_stored_by_the_next_head(
    process: Process, join: Join, write: str
) -> None:
    """Nothing refers to parts that are not there, whether a fold or a call could not store them."""
    desk, shelf = held(process)
    await _fill(desk)
    session = await desk.open()
    refused = StoreRefused("no room", subject="", err_code=0, description="")
    shelf.hold(write, refused)
    folding = asyncio.create_task(session.fold())
    await shelf.entered.wait()
    begun = session.begin()
    with within(begun):
        desk.agent.items += ["y" * 300] * 600
    shelf.let.set()
    with pytest.raises(StoreRefused):
        await folding
    assert session.lost
    await session.commit("big")
    shelf.hold(write, refused)
    shelf.let.set()
    with pytest.raises(StoreRefused):
        async with desk.call("more"):
            desk.agent.items += ["z" * 300] * 600
    async with desk.call("more"):
        desk.agent.items += ["z" * 300] * 600
    other = actor(await join())
    async with other.call():
        assert list(other.agent.items) == ["x" * 300] * 20 + ["y" * 300] * 600 + ["z" * 300] * 600


async def test_a_call_that_waits_for_a_fold_may_be_cancelled(process: Process, join: Join) -> None:
    """The fold goes on, and so does the next call; nor does it keep the process from stopping."""
    desk, shelf = held(process)
    await _fill(desk)
    session = await desk.open()

    async def call(text: str) -> None:
        with within(session.begin()):
            desk.agent.items.append(text)
        try:
            await session.commit(text)
        finally:
            session.rollback()

    shelf.hold("commit")
    folding = asyncio.create_task(session.fold())
    await shelf.entered.wait()
    one = asyncio.create_task(call("one"))
    await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    two = asyncio.create_task(call("two"))
    await asyncio.sleep(0)
    assert not two.done()
    shelf.let.set()
    await asyncio.gather(folding, two)

    for number in range(8):
        await call(f"{number}")
    shelf.hold("commit")
    desk.sessions.start()
    await shelf.entered.wait()
    three = asyncio.create_task(call("three"))
    await asyncio.sleep(0)
    three.cancel()
    async with asyncio.timeout(10):
        await desk.sessions.stop()
    other = actor(await join())
    async with other.call():
        assert list(other.agent.items) == [*["x" * 300] * 20, "two", *"01234567"]


async def test_a_session_stays_open_while_it_is_folded(process: Process) -> None:
    """Nor is one folded that is not open any more: the process would fence itself."""
    desk, shelf = held(process, most=2)
    fenced: list[Place] = []
    desk.sessions.fenced = fenced.append
    await _fill(desk, "a")
    await _fill(desk, "b")
    folded, resting = await desk.open("a"), await desk.open("b")
    shelf.hold("commit")
    desk.sessions.start()
    await shelf.entered.wait()
    assert folded.folding
    assert resting.rests(time.monotonic())
    for session in ("c", "d", "b"):
        async with desk.call("x", session):
            desk.agent.count += 1
    assert await desk.open("a") is folded
    anew = await desk.open("b")
    assert anew is not resting
    anew.untold = None  # its host has told it
    shelf.let.set()
    await desk.sessions.rested()
    assert (fenced, resting.version, anew.version, folded.lost) == ([], 20, 22, False)
    async with desk.call("a20", "a"):
        assert desk.agent.items == ["x" * 300] * 20
        desk.agent.count += 1


async def test_a_session_that_is_opened_anew_waits_for_its_fold(process: Process) -> None:
    """What is read before that would be fenced by it."""
    desk, shelf = held(process)
    await _fill(desk)
    before = await desk.open()
    shelf.hold("commit")
    desk.sessions.start()
    await shelf.entered.wait()
    desk.sessions.forget("Desk", "s")
    reads = shelf.reads
    opening = asyncio.create_task(desk.open())
    for _ in range(5):
        await asyncio.sleep(0)
    assert (opening.done(), shelf.reads) == (False, reads)
    shelf.let.set()
    assert (await opening).version == before.version == 21
    async with desk.call("after"):
        desk.agent.count += 1


async def test_what_goes_while_it_is_read_is_no_damage(join: Join) -> None:
    """Its holder writes on while another process opens the session: that one reads what is there then."""
    process, other = await join(state_history=8), await join(state_history=8)
    desk = actor(process)
    await _rewrite(desk)
    while (last := await process.shelf.last(PLACE)) is None or packing.decode_commit(last.body).head:
        await _rewrite(desk, 1)
    late = actor(other)
    late.sessions.shelf = late.shelf = shelf = Meanwhile(other.shelf, lambda: _rewrite(desk))
    with within((await late.open()).begin()):
        assert late.agent.count >= 40
    assert shelf.happens is None
    shelf.happens = lambda: _rewrite(desk)
    shown = await States(shelf, other.settings).show("Desk", "s")
    assert shown.attributes["count"] >= 40
    assert shelf.happens is None


async def test_whoever_was_overtaken_is_fenced_and_finds_no_damage(join: Join) -> None:
    """What it looks for has gone since it opened the session: the state is whole, and another's."""
    process, other = await join(state_history=8), await join(state_history=8)
    desk, stale = actor(process), actor(other)
    async with desk.call("c1"):
        desk.agent.items.extend(["x" * 1000] * 500)
    session = await stale.open()
    await _rewrite(desk)
    with pytest.raises(Fenced, match="another holder"):
        await session.applied("c1")
    assert session.lost

    async with desk.call():
        desk.agent.items = ["x" * 1000] * 500
        desk.agent.items[7] = "large" * 100_000
    session = await stale.open()
    await _rewrite(desk)
    with within(session.begin()):
        stale.agent.items.clear()
        stale.agent.notes |= {str(number): Note("x" * 1000) for number in range(300)}
        with pytest.raises(Fenced, match="another holder"):
            await session.commit("c2")
    assert session.lost


# -- what is left behind ---------------------------------------------------------------------------


async def test_what_a_crash_leaves_behind_is_removed(process: Process) -> None:
    """Parts whose commit never came go with the next head."""
    desk = actor(process)
    async with desk.call():
        desk.agent.items.append("kept")
    desk.shelf.left = 20
    with pytest.raises(Crash):
        async with desk.call("c1"):
            desk.agent.items.extend(["x" * 1000] * 500)
    desk.shelf.left = None
    assert len(await subjects_left(process)) == 20
    desk.restart()
    for number in range(process.settings.state_history):
        async with desk.call(f"d{number}"):
            desk.agent.count += 1
    await desk.sessions.idle()
    assert await subjects_left(process) == ["$KV.cb_state.Desk.s"]


async def test_what_is_replaced_goes_when_no_kept_version_needs_it(join: Join) -> None:
    """Parts and large values alike; what is there at the end is what the state is made of."""
    process = await join(state_history=8, inline_limit=1000)
    desk = actor(process)
    for number in range(60):
        if number % 13 == 0:
            desk.restart()
        async with desk.call(f"c{number}"):
            desk.agent.items = [f"{number}" * 200] * 100
            desk.agent.best = Note("large" * 1000, number)
        await desk.sessions.idle()
    async with desk.call():
        del desk.agent.best
        desk.agent.items = []
    for number in range(20):
        async with desk.call(f"d{number}"):
            desk.agent.count += 1
        await desk.sessions.idle()
    assert await subjects_left(process) == ["$KV.cb_state.Desk.s"]


async def test_what_is_removed_unread_goes_too(join: Join) -> None:
    """A long list is emptied by a process that has read none of it."""
    process = await join(state_history=8, inline_limit=3000)
    desk = actor(process)
    async with desk.call():
        desk.agent.items.extend(["x" * 500] * 1000)
        desk.agent.items[7] = "large" * 1000
    desk.restart()
    assert len(await subjects_left(process)) > 128
    async with desk.call():
        desk.agent.items.clear()
    for number in range(20):
        async with desk.call(f"d{number}"):
            desk.agent.count += 1
        await desk.sessions.idle()
    assert await subjects_left(process) == ["$KV.cb_state.Desk.s"]


async def test_a_large_value_is_stored_once(process: Process) -> None:
    """Wherever in the state it stands, and however often."""
    desk = actor(process)
    text = "x" * 700_000
    for number in range(40):
        async with desk.call(f"c{number}"):
            desk.agent.items.append(text)
            desk.agent.notes[f"{number % 3}"] = Note("small")
    large = [one for one in await subjects_left(process) if ".large." in one]
    assert len(large) == 3  # chunks
    desk.restart()
    async with desk.call():
        assert list(desk.agent.items) == [text] * 40
        desk.agent.items = [text]
    desk.restart()
    async with desk.call():
        assert desk.agent.items == [text]


async def test_a_missing_part_is_a_typed_error(process: Process) -> None:
    """It names what is missing; nothing is made up."""
    desk = actor(process)
    async with desk.call():
        desk.agent.items.extend(["x" * 1000] * 500)
    await process.topology.api("STREAM.PURGE.KV_cb_state", {"filter": "$KV.cb_state.Desk.s.part.*"})
    desk.restart()
    async with desk.call():
        with pytest.raises(StateDamaged, match="callboard state history Desk s"):
            await desk.agent.items.load()


# -- retention -------------------------------------------------------------------------------------


async def test_a_state_expires_after_its_last_commit(process: Process, join: Join) -> None:
    """For readers at once, and the server removes every message of it by itself."""
    desk = actor(process, ttl=2.0)
    async with desk.call("c1"):
        desk.agent.items.extend(["x" * 1000] * 100)
    other = actor(await join(), ttl=2.0)
    last = await other.shelf.last(PLACE)
    await until(lambda: _now() > last.at + 2.0)
    async with other.call("c2"):
        assert other.agent.items == []
        other.agent.items.append("new")
    other.restart()
    async with other.call():
        assert other.agent.items == ["new"]
    assert await other.open() is not None
    while await subjects_left(process):
        await asyncio.sleep(0.05)  # the server's own clock


async def test_an_expired_state_of_which_a_part_has_gone(
    process: Process, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older commits go before the last one does; meanwhile the state is empty, not damaged."""
    desk = actor(process, ttl=100.0)
    for _ in range(3):
        async with desk.call():
            desk.agent.items.append("old")
    commits = await desk.shelf.commits(PLACE)
    gone = {"filter": commits[0].subject, "seq": commits[1].sequence}
    await process.topology.api("STREAM.PURGE.KV_cb_state", gone)
    other = actor(await join(), ttl=100.0)
    with pytest.raises(StateDamaged):
        await other.open()
    ahead = SimpleNamespace(time=lambda: _now() + 120.0, monotonic=time.monotonic)
    with monkeypatch.context() as later:
        later.setattr("callboard.state.session.time", ahead)
        async with other.call():
            assert other.agent.items == []
            other.agent.items.append("new")
    other.restart()
    async with other.call():
        assert other.agent.items == ["new"]


async def test_commits_renew_what_a_state_is_made_of(process: Process, join: Join) -> None:
    """A session that is used outlives its ttl, parts and large values included."""
    desk = actor(process, ttl=2.0)
    async with desk.call():
        desk.agent.items.extend(["x" * 1000] * 100)
        desk.agent.best = Note("large" * 20_000)
    begun = _now()
    while _now() < begun + 4.5:
        async with desk.call():
            desk.agent.count += 1
        await asyncio.sleep(0.2)  # what is tested is the passing of time
    other = actor(await join(), ttl=2.0)
    async with other.call():
        assert other.agent.items == ["x" * 1000] * 100
        assert other.agent.best == Note("large" * 20_000)


async def test_a_ttl_that_comes_later_removes_all_of_it(process: Process, join: Join) -> None:
    """Also versions that were stored without one: an old one is never taken for the state."""
    forever = actor(process)
    for _ in range(5):
        async with forever.call():
            forever.agent.items.extend(["x" * 1000] * 20)
    brief = actor(await join(), ttl=1.0)
    async with brief.call():
        assert len(brief.agent.items) == 100
    while [one for one in await subjects_left(process) if one.endswith(".s")]:
        await asyncio.sleep(0.05)  # the server's own clock


async def test_a_state_that_grows_too_large_is_refused(process: Process) -> None:
    """At the commit, and the state stays as it was; making it smaller is never refused."""
    desk = actor(process, max_bytes=1000)
    async with desk.call():
        desk.agent.items.append("x" * 900)
    with pytest.raises(StateTooLarge, match="max_bytes") as caught:
        async with desk.call():
            desk.agent.items.append("x" * 900)
    assert caught.value.fields["limit"] == 1000
    desk.restart()
    async with desk.call():
        assert desk.agent.items == ["x" * 900]
        desk.agent.items.clear()


async def test_deleting_a_session_removes_every_trace(process: Process, join: Join) -> None:
    """Its holder is fenced, and begins from nothing."""
    desk, other = actor(process), actor(await join())
    for number in range(40):
        async with desk.call(f"c{number}"):
            desk.agent.items.append("x" * 1000)
            desk.agent.best = Note("large" * 20_000, number)
    async with desk.call("", "another"):
        desk.agent.items.append("stays")
    await desk.sessions.idle()
    await other.sessions.delete("Desk", "s")
    assert await subjects_left(process) == ["$KV.cb_state.Desk.another"]
    with pytest.raises(Fenced):
        async with desk.call():
            desk.agent.items.append("more")
    async with desk.call():
        assert (desk.agent.items, desk.agent.best) == ([], None)


# -- changed code ----------------------------------------------------------------------------------


class NewNote(msgspec.Struct):
    """The item with a new field and a default."""

    text: str
    stars: int = 0
    tags: list[str] = []


class OtherNote(msgspec.Struct):
    """The item with a field that old ones have not got."""

    text: str
    author: str


class NewDesk:
    """Attributes with newer types, one more, and one less."""

    notes: ManagedDict[str, NewNote]
    items: ManagedList[str]
    more: ManagedList[int]


class OtherDesk:
    """An attribute whose stored items do not fit."""

    notes: ManagedDict[str, OtherNote]


class KindDesk:
    """An attribute of another kind."""

    items: ManagedDict[str, str]


async def _old_state(process: Process) -> Actor:
    desk = actor(process)
    async with desk.call():
        desk.agent.notes["x"] = Note("one", 2)
        desk.agent.count += 5
    return desk


async def test_old_state_opens_under_newer_types(process: Process, join: Join) -> None:
    """New fields have their defaults; attributes that the code does not name stay."""
    old = await _old_state(process)
    new = actor(await join(), NewDesk)
    async with new.call():
        assert new.agent.notes["x"] == NewNote("one", 2, [])
        new.agent.notes["x"].tags.append("new")
        assert new.agent.more == []
    old.restart()
    async with old.call():
        assert (old.agent.notes["x"], old.agent.count) == (Note("one", 2), 5)


async def test_reading_under_other_types_changes_nothing(process: Process, join: Join) -> None:
    """Newer code stores nothing of what it only reads, and older code keeps fields that it does not know."""
    old, new = await _old_state(process), actor(await join(), NewDesk)
    async with new.call() as turn:
        assert new.agent.notes["x"].tags == []
        turn.settle()
        assert turn.changes(packing.Packer()) == {}
    async with new.call():
        new.agent.notes["x"].tags.append("new")
    old.restart()
    async with old.call():
        assert old.agent.notes["x"] == Note("one", 2)
    new.restart()
    async with new.call():
        assert new.agent.notes["x"].tags == ["new"]


@pytest.mark.parametrize("cls", [OtherDesk, KindDesk])
async def test_incompatible_types_are_an_error_that_leaves_the_state(
    process: Process, join: Join, cls: type[Any]
) -> None:
    """It names the attribute."""
    old = await _old_state(process)
    async with old.call():
        old.agent.items.append("a")
    before = await old.shelf.last(PLACE)
    other = actor(await join(), cls)
    with pytest.raises(StateIncompatible) as caught:
        async with other.call():
            assert other.agent.notes["x"]
    assert caught.value.fields["attribute"] in {"notes", "items"}
    assert await old.shelf.last(PLACE) == before


class Lines:
    """Attributes whose items will not fit."""

    lines: ManagedList[Note]
    numbers: ManagedDict[int, str]
    notes: ManagedDict[str, Note]


class OtherLines:
    """With other types."""

    lines: ManagedList[OtherNote]
    numbers: ManagedDict[str, str]
    notes: ManagedDict[str, OtherNote]


OTHER = OtherNote("new", "somebody")
CHANGES: dict[str, Callable[[OtherLines], Any]] = {
    "append": lambda x: x.lines.append(OTHER),
    "insert": lambda x: x.lines.insert(0, OTHER),
    "extend": lambda x: x.lines.extend([OTHER]),
    "set": lambda x: x.lines.__setitem__(0, OTHER),
    "set step": lambda x: x.lines.__setitem__(slice(0, 2, 2), [OTHER]),
    "del": lambda x: x.lines.__delitem__(0),
    "reverse": lambda x: x.lines.reverse(),
    "key put": lambda x: x.numbers.__setitem__("1", "uno"),
    "key in": lambda x: "1" in x.numbers,
    "put": lambda x: x.notes.__setitem__("y", OTHER),
    "del key": lambda x: x.notes.__delitem__("x"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("text", ["short", "long " * 20_000])
async def test_nothing_is_put_beside_what_does_not_fit(
    process: Process, join: Join, change: str, text: str
) -> None:
    """Even if what is there is not looked at: neither code could read all of it any more."""
    old = actor(process, Lines)
    async with old.call():
        old.agent.lines.extend([Note(text, 1), Note(text, 2)])
        old.agent.numbers[1] = text
        old.agent.notes["x"] = Note(text, 3)
    other = actor(await join(), OtherLines)
    with pytest.raises(StateIncompatible):
        async with other.call():
            CHANGES[change](other.agent)
    old.restart()
    async with old.call():
        assert [note.text for note in old.agent.lines] == [text, text]
        assert (dict(old.agent.numbers), old.agent.notes["x"]) == ({1: text}, Note(text, 3))
    other.restart()
    async with other.call():  # what is replaced as a whole need not fit
        other.agent.lines[:] = [OTHER]
        other.agent.lines.append(OTHER)
        other.agent.notes = {"y": OTHER}


async def test_large_items_are_looked_at_by_the_commit(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append waits for none of them, and reads none above 1 MiB."""
    desk = actor(process)
    sizes = {"medium": 100_000, "large": 2_000_000}
    for session, size in sizes.items():
        async with desk.call(session=session):
            desk.agent.items.append("x" * size)
    desk.restart()
    monkeypatch.setattr(process.shelf, "load_now", None)
    for session, size in sizes.items():
        async with desk.call(session=session) as turn:
            desk.agent.items.extend(["y", "z"])
            assert len(turn.unseen) == 1
        (cell, *_) = cells((await desk.open(session)).kept["items"].root, _nothing)
        assert (cell.raw is not None) == (size < 1 << 20)
        async with desk.call(session=session) as turn:
            desk.agent.items.append("z")
            assert not turn.unseen


def _nothing(unread: Sequence[Unread]) -> None:
    raise AssertionError(f"{unread} is not there")


async def test_a_batch_hears_of_what_does_not_fit_by_its_commits(process: Process) -> None:
    """Unless it is replaced as a whole before."""
    old, other = actor(process, Lines), Actor(OtherLines, process.shelf, process.settings)
    other.name = old.name
    async with old.call():
        old.agent.numbers[1] = "one"
    for cleared in (False, True):
        session = await other.open()
        with within(session.begin(beside=True)):
            assert "1" not in other.agent.numbers
            if cleared:
                other.agent.numbers.clear()
            other.agent.numbers["1"] = "uno"
        if cleared:
            await session.commit("second")
        else:
            with pytest.raises(StateIncompatible):
                await session.commit("first")
            session.rollback()
    async with other.call():
        assert dict(other.agent.numbers) == {"1": "uno"}


async def test_a_server_that_lags_behind_knows_of_nothing_newer(
    process: Process, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has not got yet was not deleted; what somebody else has written since, or deleted, is told."""
    desk, other = actor(process), actor(await join())
    for number in range(2):
        async with desk.call(f"c{number}"):
            desk.agent.count += 1
    session, real = await desk.open(), process.shelf.last
    first = await process.shelf.at(PLACE, session.sequence - 1)
    answers: list[Stored | None] = [None, None, first]

    async def last(place: Place) -> Stored | None:
        return answers.pop(0) if answers else await real(place)

    assert first is not None
    monkeypatch.setattr(process.shelf, "last", last)
    assert await session.is_newest()
    assert not answers
    async with other.call("c2"):
        other.agent.count += 1
    assert not await session.is_newest()
    await other.sessions.delete(*PLACE)
    assert not await session.is_newest()
    assert await (await desk.open("new")).is_newest()


class Bare(msgspec.Struct, eq=False):
    """Compares by identity."""

    text: str
    scores: list[float]


class Oddities:
    """Items that do not equal what is read back."""

    bare: ManagedDict[str, Bare]
    plain: ManagedList[dict[str, Any]]


async def test_what_is_put_in_and_changed_is_stored_though_it_equals_nothing(process: Process) -> None:
    """Structs that compare by identity, numbers that are none, and tuples, which are read as lists."""
    desk = actor(process, Oddities)
    async with desk.call():
        bare = desk.agent.bare.setdefault("k", Bare("a", [math.nan]))
        bare.text = "changed"
        bare.scores.append(1.0)
        said: dict[str, Any] = {"parts": ("a", math.nan)}
        desk.agent.plain.append(said)
        said["more"] = "b"
        deep: list[Any] = [math.nan]
        for _ in range(300):
            deep = [deep]
        desk.agent.plain.append({"deep": deep})
    desk.restart()
    async with desk.call():
        bare = desk.agent.bare["k"]
        assert (bare.text, math.isnan(bare.scores[0]), bare.scores[1:]) == ("changed", True, [1.0])
        read, _ = desk.agent.plain
        assert (read["parts"][0], read["more"]) == ("a", "b")
        assert desk.agent.bare["k"] is bare


@pytest.mark.parametrize("late", range(4))
async def test_who_opens_it_at_the_same_time_has_the_same_session(
    process: Process, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    """However few turns of the event loop lie between: else one call's changes would fence the next one's."""
    sessions = Sessions(process.shelf, process.settings)
    rules, loop = Rules({"count": "counter"}), asyncio.get_running_loop()
    load, others = Session.load, list[asyncio.Task[Session]]()

    def after(turns: int) -> None:
        if turns:
            loop.call_soon(after, turns - 1)
        else:
            others.append(loop.create_task(sessions.open(*PLACE, rules)))

    async def loaded(self: Session) -> Session:
        found = await load(self)
        after(late)
        return found

    monkeypatch.setattr(Session, "load", loaded)
    one = await sessions.open(*PLACE, rules)
    await until(lambda: others)
    assert await others[0] is one
    assert await sessions.open(*PLACE, rules) is one


async def test_what_is_forgotten_while_it_is_read_is_read_anew(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever forgets a session knows that somebody else has written."""
    sessions = Sessions(process.shelf, process.settings)
    rules, load, loads = Rules({"count": "counter"}), Session.load, list[Session]()

    async def loaded(self: Session) -> Session:
        loads.append(self)
        found = await load(self)
        if len(loads) == 1:
            sessions.forget(*PLACE)
        return found

    monkeypatch.setattr(Session, "load", loaded)
    assert await sessions.open(*PLACE, rules) is loads[1]
    assert await sessions.open(*PLACE, rules) is loads[1]


async def test_a_turn_that_is_over_can_not_be_touched(process: Process) -> None:
    """What a handler leaves behind in a task of its own changes nothing."""
    desk = actor(process)
    async with desk.call() as turn:
        desk.agent.items.append("a")
        items = desk.agent.items
    with within(turn), pytest.raises(Exception, match="has ended"):
        items.append("b")


def _now() -> float:
    return time.time()


def test_history_has_a_smallest_value() -> None:
    """Fewer commits could not hold a state."""
    with pytest.raises(Exception, match="state_history"):
        Settings.load({}, state_history=3)
