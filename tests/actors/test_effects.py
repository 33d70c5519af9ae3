"""Effects: announced before they run, never run twice, and their callers told when nobody knows."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from tests.support.board import Board, call_headers, call_subject, packed
from tests.support.waiting import SOON, until

from callboard import (
    CallboardError,
    ManagedCounter,
    ManagedList,
    NotDone,
    OutcomeUnknown,
    agent,
    batchable,
    effect_key,
    method,
    options,
    tool,
    workflow,
)
from callboard.actors.dead import DeadLetters
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import (
    CallTimeout,
    DeclarationInvalid,
    InvalidArguments,
    InvalidResult,
    NoEffect,
    Poisoned,
    RunFailed,
    StateTooLarge,
)
from callboard.infra.messages.dead import DeadLetter
from callboard.infra.messages.run import Intent

DONE: Counter[str] = Counter()
KEYS: list[str] = []
GATE = asyncio.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has happened, the gate is shut."""
    global GATE  # noqa: PLW0603 - an event belongs to the loop of one test
    DONE.clear()
    KEYS.clear()
    GATE = asyncio.Event()


class Refused(Exception):
    """What an effect fails with."""


@tool(effect=True)
async def pay(order: str) -> str:
    """An effect without a key; ends when the gate opens."""
    DONE[order] += 1
    KEYS.append(effect_key())
    await GATE.wait()
    return f"paid {order}"


@tool(effect=True, key="order")
async def book(order: str, note: str = "") -> str:
    """An effect with a key; ends when the gate opens."""
    DONE[order] += 1
    KEYS.append(effect_key())
    await GATE.wait()
    return f"booked {order} {note}"


@tool(effect=True)
async def ship(order: str) -> str:
    """Can tell whether it has happened."""
    DONE[order] += 1
    await GATE.wait()
    return f"shipped {order}"


@ship.reconcile
def shipped(order: str) -> str:
    """Looks into the ledger; in a thread."""
    if order.startswith("broken"):
        raise Refused("the ledger is shut")
    if not DONE[order] or order.startswith("lost"):
        raise NotDone
    return f"found {order}"


@tool(effect=True)
async def send(order: str) -> None:
    """Ends when the gate opens, and so does its reconcile."""
    DONE[order] += 1
    await GATE.wait()


@send.reconcile
async def sent(order: str) -> None:
    """Has to wait, too."""
    DONE["asked"] += len(order)
    await GATE.wait()


@tool(effect=True, retries=3, backoff=0.01, key=lambda order, failures: f"try-{order}-{failures}")
async def attempt(order: str, failures: int) -> int:
    """Raises so often before it happens."""
    DONE["tried"] += 1
    KEYS.append(effect_key())
    if DONE["tried"] <= failures:
        raise Refused(order)
    DONE[order] += 1
    return DONE["tried"]


@tool(effect=True, timeout=0.05, retries=3, backoff=0.01)
async def slow(order: str) -> None:
    """Takes longer than it may."""
    DONE[order] += 1
    await asyncio.sleep(3600)


@tool(effect=True, retries=3, backoff=0.01, retry_on=("InvalidResult", "OutcomeUnknown"))
async def untold(order: str) -> Any:
    """Happens, and gives what cannot travel."""
    DONE[order] += 1
    return object()


@tool(effect=True, key="order")
async def print_out(order: str) -> bytes:
    """Happens, and gives more than a message of the server holds."""
    DONE[order] += 1
    return b"x" * (3 << 20)


@agent(state_max_bytes=1000)
class Teller:
    """An agent with state, whose method has an effect."""

    paid: ManagedList[str]

    @method(effect=True)
    async def pay(self, order: str) -> int:
        """An effect and a change of state."""
        DONE[order] += 1
        self.paid.append(order)
        await GATE.wait()
        return len(self.paid)

    @pay.reconcile
    async def was_paid(self, order: str) -> int:
        """The state that the dead handler left is gone: make it again."""
        if not order.startswith("known"):
            raise Refused("nobody knows")
        self.paid.append(order)
        return len(self.paid)

    @method
    async def all(self) -> list[str]:
        """What is kept."""
        return list(self.paid)


@agent
class Purse:
    """An agent with state, whose effect has a key."""

    spent: ManagedCounter

    @method(effect=True, key="order")
    async def pay(self, order: str) -> int:
        """How much in this session."""
        DONE[order] += 1
        self.spent += 1
        return self.spent

    @method
    async def all(self) -> int:
        """How much there is."""
        return self.spent


@workflow
async def paying(orders: list[str]) -> list[str]:
    """All of them at once; tells of each what it has become."""
    outcomes = await asyncio.gather(*(pay(order) for order in orders), return_exceptions=True)
    return [one if isinstance(one, str) else type(one).__name__ for one in outcomes]


@workflow
async def sending(order: str) -> str:
    """What is behind that nobody knows."""
    try:
        await send(order)
    except OutcomeUnknown as error:
        return type(error.__cause__).__name__
    return "sent"


@workflow
async def shipping(order: str) -> str:
    """One call."""
    return await ship(order)


@workflow
async def booking(orders: list[str]) -> list[str]:
    """All of them at once, and the first one once more afterwards."""
    given = list(await asyncio.gather(*(book(order, str(n)) for n, order in enumerate(orders))))
    return [*given, await book(orders[0], "late")]


@workflow
async def booking_again(order: str) -> list[str]:
    """Calls once more what it was not told of."""
    told = []
    for _ in range(2):
        try:
            told.append(await book(order))
        except OutcomeUnknown as error:
            told.append(f"unknown {error.fields['key']}")
    return told


@workflow
async def trying(order: str, failures: int) -> int:
    """One call with retries."""
    return await attempt(order, failures)


@workflow
async def dawdling(order: str) -> None:
    """A call that times out."""
    await slow(order)


@workflow
async def mute(order: str) -> Any:
    """A call whose result cannot travel."""
    return await untold(order)


@workflow
async def telling(order: str) -> list[Any]:
    """An effect of an agent with state."""
    told: list[Any] = []
    try:
        told.append(await Teller.pay(order))
    except OutcomeUnknown as error:
        told.append(type(error.__cause__).__name__)
    return [*told, await Teller.all()]


@workflow
async def printing(order: str) -> list[str]:
    """Calls once more what it was not told of."""
    told = []
    for _ in range(2):
        try:
            await print_out(order)
        except CallboardError as error:
            told.append(f"{error.code} {type(error.__cause__).__name__}")
    return told


@workflow
async def spending(order: str) -> list[list[int]]:
    """With one key in two sessions."""
    told = []
    for session in ("a", "b"):
        with options(session=session):
            told.append([await Purse.pay(order), await Purse.all()])
    return told


async def test_the_intent_stands_before_the_outcome(board: Board) -> None:
    """With the call, the hash of its arguments, the host and the time; then the result as of any call."""
    host = await board.host(pay, paying)
    run = await board.submit(paying, orders=["a"])
    (entry,) = await board.entries(run, "intent.*")
    intent = msgspec.msgpack.decode(entry.body, type=Intent)
    assert (intent.future, intent.call, intent.host, intent.attempt) == (f"{run}:1", "pay.call", host.id, 1)
    assert len(intent.arguments) == 32
    assert entry.at - SOON < intent.at < entry.at + SOON
    GATE.set()
    assert (await board.done(run)).status == "completed"
    assert [f"{run}:1"] == KEYS


async def test_a_dead_hosts_effect_is_not_run_again(board: Board) -> None:
    """Its caller is told what was begun, where and when."""
    first = await board.host(pay)
    await board.host(paying)
    client = await board.client()
    run = await client.submit(paying.name, {"orders": ["a", "b"]})
    await until(lambda: DONE.total() == 2)
    await board.kill(first)
    await board.host(pay)
    assert await client.result(run, SOON) == ["OutcomeUnknown", "OutcomeUnknown"]
    assert DONE == {"a": 1, "b": 1}
    results = await board.results(run)
    told = [one.error for one in results if one.error is not None]
    assert [one.code for one in told] == ["outcome_unknown"] * 2
    for one in told:
        assert one.fields["host"] == first.id
        assert one.fields["intent"] in {f"{run}:1~1", f"{run}:2~1"}
        assert one.fields["at"] > 0


@pytest.mark.parametrize(
    ("order", "outcome", "times"),
    [("a", "found a", 1), ("lost", "shipped lost", 2)],
)
async def test_reconcile_says_what_has_happened(board: Board, order: str, outcome: str, times: int) -> None:
    """What it returns is the result; if it says that nothing has happened, the handler runs."""
    first = await board.host(ship)
    await board.host(shipping)
    client = await board.client()
    run = await client.submit(shipping.name, {"order": order})
    await until(lambda: DONE.total() == 1)
    await board.kill(first)
    GATE.set()
    await board.host(ship)
    assert await client.result(run, SOON) == outcome
    assert DONE[order] == times


async def test_a_reconcile_that_fails_leaves_it_unknown(board: Board) -> None:
    """Its error is the cause of the caller's."""
    first = await board.host(ship)
    await board.host(shipping)
    client = await board.client()
    run = await client.submit(shipping.name, {"order": "broken"})
    await until(lambda: DONE.total() == 1)
    await board.kill(first)
    await board.host(ship)
    with pytest.raises(RunFailed) as failed:
        await client.result(run, SOON)
    assert isinstance(failed.value.__cause__, OutcomeUnknown)
    assert isinstance(failed.value.__cause__.__cause__, Refused)
    assert DONE == {"broken": 1}


async def test_of_two_messages_of_one_call_one_runs(board: Board) -> None:
    """On two hosts at once: the other leaves it to the one that has announced it."""
    for _ in range(2):
        await board.host(pay)
    node = await board.node()
    for number in range(40):
        for copy in (1, 2):
            head = call_headers(f"01RUN:{number}", Nats_Msg_Id=f"{number} {copy}")
            await node.store.stored(call_subject(pay), packed({"order": str(number)}), head)
    await until(lambda: DONE.total() == 40)
    GATE.set()
    await board.emptied("CALLS")
    assert set(DONE.values()) == {1}
    results = await board.results("01RUN")
    assert sorted(one.future for one in results) == sorted(f"01RUN:{number}" for number in range(40))
    assert {one.error for one in results} == {None}


async def test_a_key_names_one_effect_of_a_run(board: Board) -> None:
    """Whoever calls with the same key, at the same time or later, is given the same result."""
    for _ in range(2):
        await board.host(book)
    await board.host(booking)
    client = await board.client()
    run = await client.submit(booking.name, {"orders": ["a", "a", "b", "a"]})
    await until(lambda: DONE.total() == 2)
    GATE.set()
    given = await client.result(run, SOON)
    assert len({one for one in given if one.startswith("booked a")}) == 1
    assert given[2] == "booked b 2"
    assert given[4] == given[0]
    assert DONE == {"a": 1, "b": 1}
    assert sorted(KEYS) == ["a", "b"]
    assert len(await board.run(booking, orders=["a"])) == 2  # another run, another effect
    assert DONE["a"] == 2


async def test_a_key_counts_in_all_sessions_of_a_run(board: Board) -> None:
    """It happens once, and the state changes in the session of the call that ran; locally, too."""
    await board.host(Purse, spending)
    assert await board.run(spending, order="one") == [[1, 1], [1, 0]]
    assert DONE == {"one": 1}
    assert await spending("other") == [[1, 1], [1, 0]]
    assert DONE == {"one": 1, "other": 1}


async def test_a_key_whose_outcome_is_unknown_stays_so(board: Board) -> None:
    """Calling again with it does not run the handler."""
    first = await board.host(book)
    await board.host(booking_again)
    client = await board.client()
    run = await client.submit(booking_again.name, {"order": "a"})
    await until(lambda: DONE.total() == 1)
    await board.kill(first)
    await board.host(book)
    assert await client.result(run, SOON) == ["unknown a", "unknown a"]
    assert DONE == {"a": 1}


async def test_an_attempt_that_raised_is_tried_again(board: Board) -> None:
    """Each attempt announces itself, and all have the same key; two calls of one key do not add up."""
    await board.host(attempt, trying)
    run = await board.submit(trying, order="a", failures=2)
    done = await board.done(run)
    assert msgspec.msgpack.decode(done.value) == 3
    entries = await board.entries(run, "intent.*", 3)
    found = [msgspec.msgpack.decode(entry.body, type=Intent) for entry in entries]
    assert [one.attempt for one in found] == [1, 2, 3]
    assert set(KEYS) == {"try-a-2"}
    assert DONE["a"] == 1


@pytest.mark.parametrize(
    ("flow", "thing", "cause"), [(dawdling, slow, CallTimeout), (mute, untold, InvalidResult)]
)
async def test_what_ends_without_its_own_word_is_unknown(
    board: Board, flow: Any, thing: Any, cause: type[Exception]
) -> None:
    """A time-out, or a result that is lost: not tried again, whatever is said of retries."""
    await board.host(thing, flow)
    with pytest.raises(RunFailed) as failed:
        await board.run(flow, order="a")
    assert isinstance(failed.value.__cause__, OutcomeUnknown)
    assert isinstance(failed.value.__cause__.__cause__, cause)
    assert DONE == {"a": 1}


async def test_an_outcome_that_the_server_refuses_leaves_it_unknown(board: Board) -> None:
    """The call is a dead letter, and its caller hears that nobody knows."""
    host = await board.host(print_out, printing)
    host.node.settings = msgspec.structs.replace(host.node.settings, inline_limit=8 << 20)
    told = await board.run(printing, order="a")
    assert told == ["outcome_unknown Poisoned", "outcome_unknown NoneType"]
    assert len(await board.letters()) == 1
    assert DONE == {"a": 1}


@pytest.mark.parametrize(("order", "first"), [("a", None), ("known", 1)])
async def test_an_agents_effect_and_its_state(board: Board, order: str, first: int | None) -> None:
    """The intent stands before, the state is kept with the outcome: unknown, it is as it was."""
    host = await board.host(Teller)
    await board.host(telling)
    client = await board.client()
    run = await client.submit(telling.name, {"order": order})
    await until(lambda: DONE.total() == 1)
    await board.kill(host)
    await board.host(Teller)
    told = await client.result(run, SOON)
    assert told == ([1, ["known"]] if first else [Refused.__name__, []])
    assert {order: 1} == DONE


@pytest.mark.parametrize("replaced", [False, True])
async def test_an_effect_sees_the_state_as_it_was_left_from_outside(board: Board, *, replaced: bool) -> None:
    """Deleted or replaced while its holder had it open: what an effect does could not be taken back."""
    GATE.set()
    await board.host(Teller, telling)
    client = await board.client()
    await client.run(telling.name, {"order": "a"}, session="s", timeout=SOON)
    earlier = await client.state.export("Teller", "s")
    await client.run(telling.name, {"order": "b"}, session="s", timeout=SOON)
    if replaced:
        await client.state.import_(earlier, replace=True)
    else:
        await client.state.delete("Teller", "s")
    told = await client.run(telling.name, {"order": "c"}, session="s", timeout=SOON)
    assert told == ([2, ["a", "c"]] if replaced else [1, ["c"]])
    assert DONE == {"a": 1, "b": 1, "c": 1}


async def test_state_that_cannot_be_kept_leaves_the_effect_unknown(board: Board) -> None:
    """It has happened, and nothing says so: it is not tried again."""
    GATE.set()
    await board.host(Teller, telling)
    order = "x" * 2000
    told = await board.run(telling, order=order)
    assert told == [StateTooLarge.__name__, []]
    assert {order: 1} == DONE


def test_what_cannot_be_declared() -> None:
    """Each error says what is wrong."""

    async def act(order: str) -> None:
        """Do something."""

    for directives in (
        {"idempotent": True},
        {"preemptable": True},
        {"cpu": True},
        {"key": "amount"},
        {"key": 7},
    ):
        with pytest.raises(DeclarationInvalid):
            tool(effect=True, **directives)(act)
    with pytest.raises(DeclarationInvalid, match="an effect cannot be batchable"):

        @agent
        class Till:
            @batchable(effect=True)
            async def pay(self, orders: list[str]) -> list[str]:
                return orders

    with pytest.raises(DeclarationInvalid):
        tool(key="order")(act)
    with pytest.raises(DeclarationInvalid):
        tool(act).reconcile(act)
    other: Any = effect_key  # it takes no order
    with pytest.raises(DeclarationInvalid):
        tool(effect=True)(act).reconcile(other)


def test_a_key_that_names_nothing() -> None:
    """It is refused before anything is announced."""
    effect = book.method.effect
    assert effect is not None
    for wrong in ("", None, True, "x" * 2000):
        with pytest.raises(InvalidArguments):
            effect.key({"order": wrong})
    assert effect.key({"order": 17}) == "17"
    assert subjects.intent_kind("r:1", "a.b", "k") != subjects.intent_kind("r:1", "a.c", "k")


def test_the_key_is_there_in_an_effect_only() -> None:
    """Elsewhere a typed error says so."""
    with pytest.raises(NoEffect):
        effect_key()


async def test_an_effect_that_was_delivered_too_often(board: Board) -> None:
    """It goes to the dead letters as any call; its caller hears that nobody knows, if it has begun."""
    host = await board.host(send, max_deliver=2)
    await board.host(sending)
    client = await board.client()
    run = await client.submit(sending.name, {"order": "a"})
    for what in ("a", "asked"):
        await until(lambda what=what: DONE[what] == 1)  # type: ignore[misc]
        await board.kill(host)
        host = await board.host(send, max_deliver=2)
    assert await client.result(run, SOON) == Poisoned.__name__
    assert len(await board.letters()) == 1
    assert DONE == {"a": 1, "asked": 1}


@pytest.mark.parametrize(
    ("thing", "flow", "given", "told", "after"),
    [
        (pay, paying, {"orders": ["a"]}, "outcome_unknown", {"a": 2}),
        (send, sending, {"order": "a"}, "", {"a": 1, "asked": 2}),
    ],
)
async def test_an_effect_that_is_sent_again_by_hand(
    board: Board, thing: Any, flow: Any, given: dict[str, Any], told: str, after: dict[str, int]
) -> None:
    """Somebody has decided that it is to run: its reconcile is asked; without one the handler runs."""
    host = await board.host(thing)
    await board.host(flow)
    run = await board.submit(flow, **given)
    await until(lambda: DONE["a"] == 1)
    await board.kill(host)
    GATE.set()
    heir = await board.host(thing)
    assert (await board.done(run)).status == "completed"
    await heir.stop()
    await board.host(thing)
    node = await board.node()
    headers = H.decode(call_headers(f"{run}:1"))
    body = packed({"order": "a"})
    letter = DeadLetter(thing.name, "too_many_deliveries", "", call_subject(thing), headers, body)
    await DeadLetters(node.store, node.reader, "test").requeue(letter, again=True)
    await board.emptied("CALLS")
    first, last = await board.results(run)
    assert ("" if first.error is None else first.error.code, last.error) == (told, None)
    assert after == DONE
