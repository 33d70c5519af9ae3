"""Whatever anybody publishes: dead letters or silence, never a crash, never a loop, and callers are told."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.support.board import Board, call_headers, call_subject, packed
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

from callboard import tool, workflow
from callboard.actors import registry
from callboard.actors.dead import DeadLetters
from callboard.actors.host import Host
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import (
    CallboardError,
    InvalidArguments,
    Poisoned,
    RequestUndecodable,
    RunFailed,
    ValueMissing,
)
from callboard.infra.messages.control import Cancel, HoldsQuery
from callboard.infra.messages.registry import Pulse
from callboard.infra.messages.run import ErrorInfo, Result, Signal
from callboard.infra.pull import Delivered

RAN: Counter[int] = anew(Counter())
GATE = Gate()


@tool
async def double(number: int) -> int:
    """Count how often it ran for a number."""
    RAN[number] += 1
    return 2 * number


@tool
async def gated(number: int) -> int:
    """Wait for the gate."""
    RAN[number] += 1
    await GATE.wait()
    return number


@tool
async def megabytes(number: int) -> bytes:
    """Give more than one message holds."""
    RAN[number] += 1
    return bytes(number << 20)


@workflow
async def large_flow(number: int) -> int:
    """The size of a large value."""
    return len(await megabytes(number))


@workflow
async def flow(number: int) -> int:
    """One call."""
    return await double(number)


@workflow
async def gated_flow(number: int) -> int:
    """A call that waits, then another."""
    return await double(await gated(number))


async def still_works(board: Board, host: Host) -> None:
    """The host has neither crashed nor lost its connection, and nothing comes again and again."""
    assert await board.run(flow, number=7) == 14
    assert host.node.connection.connected.is_set()
    assert host.node.connection.client.stats["reconnects"] == 0
    await board.emptied("CALLS")
    await board.emptied("REQUESTS")


# -- cb.call ----------------------------------------------------------------------------------

GARBAGE = [b"", b"\xc1", b"{}", b"null", b"\x93\x01\x02\x03", b"\x81\xa6number\xa1\xff", b"\x91" * 5000]
NOT_CALLS: list[tuple[str, bytes | None]] = [
    ("no headers", None),
    ("empty headers", b"NATS/1.0\r\n\r\n"),
    ("not utf-8", b"NATS/1.0\r\nCb-Future: \xff\xfe:1\r\n\r\n"),
    ("no colon", b"NATS/1.0\r\nnonsense\r\n\r\n"),
    ("no position", call_headers("run-1")),
    ("no run", call_headers(":1")),
    ("a blank", call_headers("run 1:1")),
    ("a dot in the run", call_headers("a.b:1")),
    ("a wildcard", call_headers("*:1")),
    ("a tail wildcard", call_headers("r:>")),
    ("letters", call_headers("r:x")),
    ("huge", call_headers("r:" + "1." * 5000)),
    ("not ascii", call_headers("ä:1")),
]
BAD_HEADERS = [
    ("priority", {"Cb_Priority": "high"}),
    ("deadline", {"Cb_Deadline": "tomorrow"}),
    ("attempt", {"Cb_Attempt": "1.5"}),
    ("stage", {"Cb_Stage": "x"}),
    ("huge stage", {"Cb_Stage": "9" * 40}),
    ("huge attempt", {"Cb_Attempt": "9" * 40}),
    ("another run", {"Cb_Run": "a b"}),
    ("a run with wildcards", {"Cb_Run": "*.>"}),
    ("a session", {"Cb_Session": "a b"}),
    ("an unknown method", {"Cb_Method": "nope"}),
    ("an odd method", {"Cb_Method": "* >"}),
    ("blobs", {"Cb_Blobs": "zz,,*"}),
    ("a budget", {"Cb_Budget": "run,key.a b.>"}),
]


async def test_what_is_no_call_goes_to_the_dead_letters(board: Board) -> None:
    """With the reason and the message as it was; none is delivered again, and none ends the host."""
    host = await board.host(double, flow)
    node = await board.node()
    for what, head in NOT_CALLS:
        await node.store.stored(call_subject(double), what.encode(), head)
    letters = await board.letters(len(NOT_CALLS))
    assert [letter.body.decode() for letter in letters] == [what for what, _ in NOT_CALLS]
    for number, letter in enumerate(letters, 1):
        assert (letter.actor, letter.reason) == ("double", "undecodable")
        assert letter.subject == "cb.call.double.any.1"
        assert (letter.stream, letter.sequence, letter.host) == ("CALLS", number, host.id)
        assert "Cb-Future" in letter.detail
    await still_works(board, host)
    assert RAN == {7: 1}


async def test_a_header_that_cannot_be_used_is_told_to_the_waiting_caller(board: Board) -> None:
    """A typed error is the call's outcome, and a letter where there was no way to run it."""
    host = await board.host(double, flow)
    node = await board.node()
    told: dict[str, str] = {}
    for number, (_, more) in enumerate(BAD_HEADERS):
        head = call_headers(f"waiting{number}:1", **more)
        await node.store.stored(call_subject(double), packed({"number": number + 100}), head)
    for number, (what, _) in enumerate(BAD_HEADERS):
        await board.entries(f"waiting{number}", "result")
        (result,) = await board.results(f"waiting{number}")
        assert result.future == f"waiting{number}:1"
        told[what] = result.error.code if result.error else "ran"
    assert set(told.values()) <= {Poisoned.code, ValueMissing.code, "ran"}
    assert told["a budget"] == Poisoned.code
    for what in ("priority", "deadline", "attempt", "stage", "an unknown method", "an odd method"):
        assert told[what] == Poisoned.code, what
    assert told["blobs"] == ValueMissing.code
    poisoned = [what for what, code in told.items() if code == Poisoned.code]
    assert len(await board.letters(len(poisoned))) == len(poisoned)
    await still_works(board, host)


async def test_arguments_that_do_not_fit_are_refused_by_the_host_again(board: Board) -> None:
    """Published by hand, past any stub: the typed error is the outcome, and the handler never runs.

    What nobody can decode is a dead letter, too.
    """
    host = await board.host(double, flow)
    node = await board.node()
    for number, body in enumerate(GARBAGE):
        await node.store.stored(call_subject(double), body, call_headers(f"byhand{number}:1"))
    for number in range(len(GARBAGE)):
        await board.entries(f"byhand{number}", "result")
        (result,) = await board.results(f"byhand{number}")
        assert result.error is not None
        assert result.error.code == InvalidArguments.code
        assert result.error.fields == {"actor": "double", "method": "call"}
    letters = await board.letters(len(GARBAGE) - 1)  # an array is msgpack, and only does not fit
    assert {(letter.actor, letter.reason) for letter in letters} == {("double", "undecodable")}
    assert {letter.body for letter in letters} == {body for body in GARBAGE if body[:1] != b"\x93"}
    await still_works(board, host)
    assert RAN == {7: 1}


async def test_a_message_of_the_largest_size_that_is_no_call(board: Board) -> None:
    """Its letter would be larger than a message may be: what does not fit is left out, and said."""
    host = await board.host(double, flow)
    node = await board.node()
    body = b"x" * (node.connection.max_payload - 100)
    await node.store.stored(call_subject(double), body, H.encode([("A", "b")]))
    (letter,) = await board.letters()
    assert letter.reason == "undecodable"
    assert len(letter.body) < len(body)
    assert letter.body == body[: len(letter.body)]
    assert str(len(body)) in letter.detail.replace(",", "")
    await still_works(board, host)


async def test_an_inline_limit_above_what_the_server_takes(board: Board) -> None:
    """Values that would not fit into a message travel by reference all the same."""
    with capture_logs() as logs:
        await board.host(large_flow, megabytes, inline_limit=8 << 20)
    assert any(entry["event"] == "inline_limit_lowered" for entry in logs)
    assert await board.run(large_flow, number=2) == 2 << 20


async def test_an_outcome_that_the_server_refuses_is_told(board: Board) -> None:
    """The caller gets a typed error, and the call is a dead letter; it does not run again."""
    host = await board.host(large_flow, megabytes)
    host.node.settings = msgspec.structs.replace(host.node.settings, inline_limit=8 << 20)
    with pytest.raises(RunFailed) as caught:
        await board.run(large_flow, number=3)
    assert isinstance(caught.value.__cause__, Poisoned)
    assert caught.value.__cause__.fields["reason"] == "refused_by_store"
    assert "its outcome was not stored" in caught.value.__cause__.message
    (letter,) = await board.letters()
    assert (letter.actor, letter.reason) == ("megabytes", "refused_by_store")
    assert RAN[3] == 1


async def test_an_actor_that_a_host_does_not_run(board: Board) -> None:
    """Addressed to a host by name: nobody else will ever look at it."""
    host = await board.host(double, flow)
    node = await board.node()
    subject = subjects.call("nobody", host.id, 1)
    await node.store.stored(subject, packed({}), call_headers("lost:1"))
    (letter,) = await board.letters()
    assert (letter.actor, letter.reason) == ("nobody", "unknown_actor")
    (result,) = await board.results("lost")
    assert result.error is not None
    assert result.error.code == Poisoned.code
    await still_works(board, host)


async def test_a_message_found_dead_twice_is_one_letter(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host dies between storing the letter and acking the message: the next one finds it dead, too."""
    node = await board.node()
    with monkeypatch.context() as patch:
        patch.setattr(Delivered, "ack", lambda self: None)
        first = await board.host(double)
        await node.store.stored(call_subject(double), b"no call", H.encode([]))
        await board.letters()
        await board.kill(first)
    await board.host(double)
    await board.emptied("CALLS")
    assert len(await board.letters()) == 1


async def test_a_dead_letter_can_be_sent_again(board: Board) -> None:
    """As it was, or mended: a request that became no run becomes one then."""
    node = await board.node()
    await board.host(double, flow)
    head = H.encode([(H.PRIORITY, "high")])
    await node.store.stored("cb.request.flow", b'{"number": 3}', head)
    (letter,) = await board.letters()
    dead = DeadLetters(node.store, node.reader, "test")
    letter.headers |= {H.RUN: "mended", H.PRIORITY: "1"}
    await dead.requeue(letter)
    assert msgspec.msgpack.decode((await board.done("mended")).value) == 6


# -- cb.request -------------------------------------------------------------------------------

BAD_REQUESTS = [
    ("run id", b"{}", {"Cb_Run": "a.b"}),
    ("message id", b"{}", {"Nats_Msg_Id": "a b"}),
    ("long run id", b"{}", {"Cb_Run": "x" * 200}),
    ("priority", b"{}", {"Cb_Priority": "high"}),
    ("deadline", b"{}", {"Cb_Deadline": "soon"}),
]


async def test_requests_that_cannot_become_runs(board: Board) -> None:
    """Dead letters with the reason; the driver goes on."""
    host = await board.host(double, flow)
    node = await board.node()
    for _, body, more in BAD_REQUESTS:
        items = [(name.replace("_", "-"), value) for name, value in more.items()]
        await node.store.stored("cb.request.flow", body, H.encode(items))
    letters = await board.letters(len(BAD_REQUESTS))
    assert {(letter.actor, letter.reason) for letter in letters} == {("flow", "undecodable")}
    await still_works(board, host)


BAD_BODIES = [*GARBAGE, b"{", b'{"number": "x"}', b'{"number": 1, "more": 2}x']


@pytest.mark.parametrize("kind", ["", "application/json", "application/msgpack", "text/plain"])
async def test_requests_whose_arguments_do_not_fit(board: Board, kind: str) -> None:
    """Runs that fail with the typed error, so that their requesters hear of it."""
    host = await board.host(double, flow)
    node = await board.node()
    for number, body in enumerate(BAD_BODIES):
        items = [(H.RUN, f"bad{number}"), *([(H.CONTENT_TYPE, kind)] if kind else [])]
        await node.store.stored("cb.request.flow", body, H.encode(items))
    for number in range(len(BAD_BODIES)):
        done = await board.done(f"bad{number}")
        assert done.status == "failed"
        assert done.error is not None
        assert done.error.code in {InvalidArguments.code, RequestUndecodable.code}
    await still_works(board, host)


# -- cb.run -----------------------------------------------------------------------------------


def strange_results(run: str) -> list[bytes]:
    """Results that decode and say something odd."""
    return [
        packed(Result("", "")),
        packed(Result(f"{run}:99", "double.call", msgspec.Raw(b"\x02"))),
        packed(Result("other:1", "double.call", msgspec.Raw(b"\x02"))),
        packed(Result(f"{run}:99", "double.call", error=ErrorInfo("no such code", "x", "os:system", ["ls"]))),
        packed(Result(f"{run}:99", "x", error=ErrorInfo("call_timeout", "x", fields={"message": "m"}))),
        packed(Result(f"{run}:99", "x", blobs=["zz"])),
    ]


async def test_garbage_in_the_journal_of_a_running_run(board: Board) -> None:
    """Passed over by its driver, by its clients, and by a driver that takes it over."""
    driver = await board.host(gated_flow)
    worker = await board.host(gated, double, flow)
    node = await board.node()
    run = await board.submit(gated_flow, number=1)
    await until(lambda: RAN[1] == 1)
    for kind in ("result", "attempt", "pending", "signal", "nonsense", "result.1"):
        for body in GARBAGE:
            await node.store.stored(subjects.run(run, kind), body)
    await node.store.stored(subjects.run(run, "signal"), packed(Signal("unknown", "x")))
    client = await board.client()
    events = [event async for event in client.events(run, follow=False)]
    assert "owner" in [event.kind for event in events]
    await board.kill(driver)
    await board.host(gated_flow)
    await board.entries(run, "owner", count=2)
    for body in GARBAGE:
        await node.store.stored(subjects.run(run, "result"), body)
    GATE.set()
    assert await client.result(run, SOON) == 2
    await still_works(board, worker)


async def test_strange_results_for_calls_that_were_never_made(board: Board) -> None:
    """They concern nobody: the run goes on to its own result."""
    await board.host(gated_flow)
    worker = await board.host(gated, double, flow)
    node = await board.node()
    run = await board.submit(gated_flow, number=1)
    await until(lambda: RAN[1] == 1)
    for body in strange_results(run):
        await node.store.stored(subjects.run(run, "result"), body)
    GATE.set()
    assert await (await board.client()).result(run, SOON) == 2
    await still_works(board, worker)


async def test_a_strange_result_for_a_call_that_waits(board: Board) -> None:
    """Its caller gets some error of Callboard's; nothing hangs."""
    await board.host(gated_flow)
    worker = await board.host(gated, double, flow)
    node = await board.node()
    odd = [
        Result("{}:1", "gated.call", msgspec.Raw(b"\xa1x")),
        Result("{}:1", "gated.call", blobs=["zz"]),
        Result("{}:1", "gated.call", error=ErrorInfo("", "", "builtins:ExceptionGroup", [])),
        Result("{}:1", "gated.call", error=ErrorInfo("call_failed", "x", "builtins:StopIteration", [])),
        Result("{}:1", "other.call"),
    ]
    for number, result in enumerate(odd, 10):
        run = await board.submit(gated_flow, number=number)
        await until(lambda number=number: RAN[number] == 1)  # type: ignore[misc]
        result.future = result.future.format(run)
        await node.store.stored(subjects.run(run, "result"), packed(result))
        with pytest.raises(RunFailed) as caught:
            await (await board.client()).result(run, SOON)
        assert isinstance(caught.value.__cause__, CallboardError | RuntimeError | ExceptionGroup)
    GATE.set()
    await still_works(board, worker)


async def test_garbage_where_a_runs_outcome_should_be(board: Board) -> None:
    """Whoever waits goes on waiting, and gets the outcome when it comes."""
    await board.host(gated_flow, gated, double)
    node = await board.node()
    run = await board.submit(gated_flow, number=1)
    await until(lambda: RAN[1] == 1)
    client = await board.client()
    waiting = asyncio.create_task(client.result(run, SOON))
    await asyncio.sleep(0.01)
    await node.store.stored(subjects.run(run, "done"), b"\xc1")
    with_json = H.encode([(H.CONTENT_TYPE, H.JSON)])
    await node.store.stored(subjects.run(run, "done"), b"{", with_json)
    GATE.set()
    assert await waiting == 2
    assert await client.result(run, SOON) == 2


# -- cb.control and the registry --------------------------------------------------------------


async def test_garbage_on_control_subjects(board: Board) -> None:
    """Ignored; orders that make sense are followed afterwards."""
    host = await board.host(double, flow)
    node = await board.node()
    orders = [
        *GARBAGE,
        packed({"type": "explode"}),
        packed({"type": "cancel"}),
        packed({"type": "cancel", "run": 5}),
        packed({"type": "drain", "grace": "long"}),
        packed(Cancel(run="")),
        packed(Cancel(run="*", futures=["", ">"])),
        packed(HoldsQuery("", "")),
    ]
    for body in orders:
        for subject in (f"cb.control.{host.id}", "cb.control.all"):
            node.connection.publish(subject, body)
            node.connection.publish(subject, body, reply="nobody.listens")
    await node.connection.flush()
    assert await node.connection.request(f"cb.control.{host.id}", packed(HoldsQuery("CALLS", "x")))
    assert not host.draining
    await still_works(board, host)


STRANGE_PULSES = [
    packed(Pulse("a b", 0.0)),
    packed(Pulse("*", 0.0)),
    packed(Pulse("", 0.0)),
    packed(Pulse("ghost", 0.0, inflight={"nonsense": [1], "": [2], "CALLS.a b": [3], "NONE.c": [-1]})),
    packed({"host": "ghost2", "at": 0.0, "instances": {"a b": {}}}),
    packed({"host": 5, "at": "x"}),
]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_garbage_in_the_registry(board: Board, when: str) -> None:
    """Neither keeps a host from starting nor disturbs one; ghosts are taken for dead and swept away."""
    node = await board.node()

    async def publish() -> None:
        for number, body in enumerate([*GARBAGE[1:], *STRANGE_PULSES]):
            for key in (f"host.x{number}", f"actor.x{number}", f"takeover.x{number}"):
                await node.store.stored(subjects.registry(key), body)

    if when == "before":
        await publish()
    with capture_logs() as logs:
        host = await board.host(double, flow)
        if when == "after":
            await publish()
        await still_works(board, host)
        assert "double" in [actor.name for actor in await registry.actors(node)]
        assert host.id in [pulse.host for pulse in await registry.hosts(node)]
        await until(lambda: host.watch.alive.keys() == {host.id})
        await still_works(board, host)
    assert [entry for entry in logs if entry["event"] == "connection_closed"] == []
