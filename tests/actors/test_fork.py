"""Forks: new runs that begin with the first outcomes of others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.board import Board
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

import callboard
from callboard import ManagedList, agent, human, method, tool, workflow
from callboard.actors.client import Client
from callboard.actors.record import read
from callboard.infra import subjects
from callboard.infra.errors import ForkRefused, InvalidArguments, RunFailed, RunIdTaken, RunUnknown
from callboard.state.journal import decode_owner

RAN: Counter[str] = anew(Counter())
GIVES: dict[str, int] = anew({})
CODE: dict[str, Callable[[], Any]] = anew({})
SECOND = Gate()


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers, and what the test says."""
    RAN["add"] += 1
    return a + b + GIVES.get("more", 0)


@tool
async def fail(text: str) -> str:
    """Raise."""
    RAN["fail"] += 1
    raise ValueError(text)


@tool
async def large(size: int) -> str:
    """Long."""
    RAN["large"] += 1
    return "x" * size


@tool
async def held(name: str) -> str:
    """Wait for its gate."""
    RAN[name] += 1
    await SECOND.wait()
    return name


@tool(effect=True, key="order")
async def charge(order: str) -> str:
    """Must not happen twice."""
    RAN[f"charge {order}"] += 1
    return f"{order}:{RAN[f'charge {order}']}"


@tool(effect=True)
async def mail(to: str) -> str:
    """Must not happen twice either."""
    RAN[f"mail {to}"] += 1
    return to


@agent
class Clerk:
    """Calls others."""

    @method
    async def bill(self, order: str) -> str:
        """An effect below a call."""
        return await charge(order)

    @method
    async def repeat(self, size: int) -> str:
        """Gives what another one has given: the outcome refers to that one's."""
        return await large(size)


@agent
class Chat:
    """Keeps what it was told."""

    said: ManagedList[str]

    @method
    async def say(self, text: str) -> list[str]:
        """All that was said in this session."""
        self.said.append(text)
        return list(self.said)


@workflow
async def draws(number: int) -> list[Any]:
    """Calls, draws and times."""
    first = await add(number, 1)
    drawn = [callboard.random().random(), str(callboard.uuid()), callboard.now().isoformat()]
    try:
        await fail("no")
    except ValueError as error:
        drawn.append(str(error))
    return [first, await add(first, 1), await add(first, 2), *drawn, callboard.random().random()]


@workflow
async def longs() -> list[int]:
    """Large outcomes: by reference, and woven."""
    whole = await large(200_000)
    woven = await Clerk.repeat(5_000)
    return [len(whole), len(woven), await add(len(whole), len(woven))]


@workflow
async def pays() -> list[str]:
    """Effects, two with one key."""
    first = await charge("a")
    nested = await Clerk.bill("b")
    await add(1, 1)
    return [first, nested, await charge("a"), await charge("b"), await mail("me")]


@workflow
async def talks() -> list[str]:
    """Managed state."""
    await Chat.say("one")
    return await Chat.say("two")


@workflow
async def asks() -> str:
    """A question and a signal between calls."""
    await add(1, 1)
    word = await human.ask("Which word?")
    paid = await callboard.signal("paid", type=int)
    await held("second")
    return f"{word} {paid} {callboard.uuid()}"


@workflow
async def changes() -> Any:
    """What the test says."""
    return await CODE["now"]()


@pytest.fixture
async def client(board: Board) -> Client:
    """Of a board with a host of all."""
    await board.host(add, fail, large, held, charge, mail, Clerk, Chat)
    await board.host(draws, longs, pays, talks, asks, changes, park_after=0.05)
    return await board.client()


async def ran(client: Client, flow: str, /, **arguments: Any) -> tuple[str, Any]:
    """A run that has ended, and its result."""
    run = await client.submit(flow, arguments)
    return run, await client.result(run)


async def test_it_begins_with_the_first_outcomes(client: Client) -> None:
    """Those calls are not made again; the rest is, with what hosts have now; the old run stays as it is."""
    run, first = await ran(client, "draws", number=5)
    before, entries = RAN.copy(), len(await client.node.journal.read(run))
    GIVES["more"] = 100
    own = await client.fork(run, 3)
    result = await client.result(own)
    assert result == [6, 107, 108, *first[3:]]
    assert RAN - before == Counter(add=2)
    assert len(await client.node.journal.read(run)) == entries
    found = await client.diff(run, own, draws)
    assert found.first is not None
    assert (found.first.number, found.first.path) == (4, "5")
    assert (found.first.what, found.first.one, found.first.other) == ("outcome", 7, 107)
    assert (await client.replay(own, draws)).ending == "same"


@pytest.mark.parametrize("as_json", [False, True])
async def test_from_the_beginning(client: Client, *, as_json: bool) -> None:
    """No outcome is taken over: the same request, or another one."""
    run = await client.submit("draws", {"number": 5}, as_json=as_json)
    first = await client.result(run)
    own = await client.fork(run, 0)
    again = await client.result(own)
    assert (again[0], again[3:5]) == (6, first[3:5])
    assert again[5] != first[5]  # it is later
    assert (await client.result(await client.fork(run, 0, {"number": 7})))[0] == 8
    with pytest.raises(InvalidArguments, match="nothing"):
        await client.fork(run, 1, {"nothing": 1})


async def test_every_step(client: Client) -> None:
    """Wherever it is forked, the result is the same where nothing has changed."""
    run, first = await ran(client, "draws", number=5)
    steps = (await client.replay(run, draws)).recorded
    for at in range(steps + 1):
        own = await client.fork(run, at)
        result = await client.result(own)
        assert result[:5] + result[6:] == first[:5] + first[6:]
    assert RAN["add"] == 3 + sum(3 - taken for taken in [0, 1, 1, 1, 2, 3])


async def test_a_fork_of_a_fork(client: Client) -> None:
    """It draws what the first run drew, also after it was put aside."""
    run = await client.submit("asks")
    await answered(client, run)
    SECOND.set()
    drawn = (await client.result(run)).split()[-1]
    own = await client.fork(run, 1)
    other = await client.fork(own, 1)
    for one in (own, other):
        await answered(client, one)
        assert (await client.result(one)).split()[-1] == drawn
    assert RAN["add"] == 1


async def answered(client: Client, run: str) -> None:
    """Answer a run's question when it is asked, and send its signal."""
    asked: list[str] = []
    while not asked:
        asked = [one.id for one in await client.inbox() if one.run == run]
    await client.answer(asked[0], "word")
    await client.signal(run, "paid", 7)


async def test_answers_and_signals_are_taken_over(client: Client) -> None:
    """Of a run that goes on, and is not disturbed."""
    run = await client.submit("asks")
    await answered(client, run)
    await until(lambda: RAN["second"] == 1)
    steps = (await client.replay(run, asks)).recorded
    own = await client.fork(run, steps)
    await until(lambda: RAN["second"] == 2)
    SECOND.set()
    assert await client.result(own) == await client.result(run)
    assert RAN == {"add": 1, "second": 2}


async def test_large_outcomes(client: Client) -> None:
    """What referred to the old run's journal stands in the new one as a whole."""
    run, first = await ran(client, "longs")
    assert any(one.result.woven for one in (await read(client, run)).outcomes)
    own = await client.fork(run, 2)
    assert await client.result(own) == first
    assert RAN == {"large": 2, "add": 2}
    await client.node.topology.purge(subjects.RUNS, f"cb.run.{run}.>")
    assert (await client.replay(own, longs)).ending == "same"


async def test_what_is_not_stored_any_more(client: Client) -> None:
    """It is refused, and told where it could be forked."""
    run, _ = await ran(client, "longs")
    await client.node.topology.purge(f"OBJ_{subjects.BLOBS_BUCKET}", "$O.>")
    client.node.blobs._cache.clear()
    with pytest.raises(ForkRefused, match="at step 0 or earlier") as refused:
        await client.fork(run, 2)
    assert refused.value.fields["reason"] == "value"
    assert (await client.runs())[-1].run == run


async def test_effects_do_not_happen_again_unknown_to_who_forks(client: Client) -> None:
    """Those taken over have happened, under their keys, too; those after them only if somebody says so."""
    run, first = await ran(client, "pays")
    assert first == ["a:1", "b:1", "a:1", "b:1", "me"]
    for at, calls in ((0, ["charge.call", "mail.call"]), (3, ["mail.call"])):
        with pytest.raises(ForkRefused, match="would happen again") as refused:
            await client.fork(run, at)
        assert (refused.value.fields["reason"], refused.value.fields["calls"]) == ("effects", calls)
    assert await client.result(await client.fork(run, 3, effects=True)) == first
    assert RAN == {"charge a": 1, "charge b": 1, "add": 1, "mail me": 2}
    assert await client.result(await client.fork(run, 6)) == first
    assert RAN["mail me"] == 2


async def test_managed_state_is_not_rolled_back(client: Client) -> None:
    """A run that is a session by itself gives a fork that is one; in a session that was named it goes on."""
    run, first = await ran(client, "talks")
    assert first == ["one", "two"]
    assert await client.result(await client.fork(run, 1)) == ["two"]
    assert await client.result(await client.fork(run, 1, session=run)) == ["one", "two", "two"]
    named = await client.submit("talks", session="s")
    await client.result(named)
    own = await client.fork(named, 1)
    assert await client.result(own) == ["one", "two", "two"]
    assert (await client.status(own)).session == "s"


async def two_calls() -> int:
    """What the run did."""
    return await add(await add(1, 1), 1)


async def another_call() -> str:
    """Something else at the first place."""
    return await fail("what")


async def test_changed_code(client: Client) -> None:
    """After the step it counts; before it the fork diverges, and says so."""
    CODE["now"] = two_calls
    run, _ = await ran(client, "changes")
    CODE["now"] = another_call
    with pytest.raises(
        RunFailed, match=r"has changed under its run: at .*:1 the journal has a call of add\.call"
    ):
        await client.result(await client.fork(run, 1))
    assert "fail" not in RAN


async def test_another_driver_takes_it_over(board: Board) -> None:
    """As any run."""
    await board.host(add, fail, large, held)
    driver = await board.host(asks)
    client = await board.client()
    run = await client.submit("asks")
    await answered(client, run)
    await until(lambda: RAN["second"])
    own = await client.fork(run, 1)
    await answered(client, own)
    await until(lambda: RAN["second"] == 2)
    await board.kill(driver)
    await board.host(asks)
    SECOND.set()
    assert (await client.result(own)).split()[-1] == (await client.result(run)).split()[-1]
    owners = [decode_owner(entry.body) for entry in await board.entries(own, "owner", 2)]
    assert [(one.epoch, one.seed) for one in owners] == [(1, run), (2, "")]
    assert RAN["add"] == 1


async def test_what_cannot_be_forked(client: Client) -> None:
    """There is no such run, or no such step, or the new id is that of another run."""
    run, _ = await ran(client, "draws", number=1)
    other, _ = await ran(client, "draws", number=2)
    with pytest.raises(RunUnknown):
        await client.fork("nothing", 0)
    for at in (-1, 6):
        with pytest.raises(ForkRefused, match="it has 5;") as refused:
            await client.fork(run, at)
        assert refused.value.fields["reason"] == "step"
    entries = len(await client.node.journal.read(other))
    for at in (0, 2):
        with pytest.raises(RunIdTaken):
            await client.fork(run, at, run_id=other)
    with pytest.raises(RunIdTaken):  # though the request is the same
        await client.fork(run, 0, run_id=run)
    assert len(await client.node.journal.read(other)) == entries


async def test_a_client_dies_before_the_request_is_stored(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same fork again goes on; another one may not have the id."""
    run, first = await ran(client, "draws", number=5)

    async def die(*_: Any, **__: Any) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as patched:
        patched.setattr("callboard.actors.client.store_request", die)
        with pytest.raises(ConnectionError):
            await client.fork(run, 2, run_id="mine")
    for at in (1, 3):
        with pytest.raises(RunIdTaken):
            await client.fork(run, at, run_id="mine")
    before = RAN["add"]
    assert await client.fork(run, 2, run_id="mine") == "mine"
    assert await client.result("mine", SOON) == first
    results = await client.node.journal.read("mine", "result")
    assert len({entry.body for entry in results}) == len(results)
    with pytest.raises(RunIdTaken):
        await client.fork(run, 2, run_id="mine")
    assert RAN["add"] - before < before


async def test_a_driver_dies_before_it_has_taken_it(board: Board) -> None:
    """The next one finds outcomes and no owner, as it would where the beginning was removed: it goes on."""
    await board.host(add, fail)
    driver = await board.host(draws)
    client = await board.client()
    run, first = await ran(client, "draws", number=5)
    held_up = asyncio.Event()

    async def never(*_: Any) -> Any:
        held_up.set()
        await asyncio.Event().wait()

    driver.node.journal.open = never  # type: ignore[assignment,method-assign]
    own = await client.fork(run, 3)
    await held_up.wait()
    await board.kill(driver)
    await board.host(draws)
    result = await client.result(own, SOON)
    assert result[:3] == first[:3]
