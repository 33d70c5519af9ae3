"""Runs: from a request to its outcome; one run however often it is asked for; clients of both kinds."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref
from collections import Counter
from typing import Any

import msgspec
import pytest
from tests.support.board import Board, packed
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, eventually, until

from callboard import connect, connect_sync, tool, workflow
from callboard.actors.driver import Driver
from callboard.actors.sync_client import SyncClient
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.direct import DirectReader
from callboard.infra.errors import (
    InvalidArguments,
    InvalidResult,
    RequestTimeout,
    ResultTimeout,
    RunFailed,
    RunUnknown,
    SettingsInvalid,
    ValueTooLarge,
)
from callboard.infra.messages.run import Done
from callboard.infra.server import EmbeddedServer
from callboard.infra.subjects import NameInvalid

RAN: Counter[Any] = anew(Counter())
GATE = Gate()


class Odd(Exception):
    """A user's error."""


@tool
async def add(a: int, b: int = 1) -> int:
    """Add."""
    RAN["add"] += 1
    return a + b


@tool
async def gated(number: int) -> int:
    """Wait for the gate."""
    RAN["gated"] += 1
    await GATE.wait()
    return number


@workflow
async def flow(n: int = 5, text: str = "") -> dict[str, Any]:
    """One call, and what it was given."""
    RAN["flow"] += 1
    return {"sum": await add(n), "text": text}


@workflow
async def gated_flow(n: int = 1) -> int:
    """Two calls, of which the first waits."""
    return await add(await gated(n))


@workflow
async def lying_flow() -> int:
    """Give something else."""
    return "text"  # type: ignore[return-value]


@workflow
async def failing_flow() -> None:
    """Raise."""
    raise Odd("no")


@workflow
async def odd_result_flow(kind: str) -> Any:
    """Give back what JSON, or the wire, has trouble with."""
    return {
        "large": b"x" * 100_000,
        "bytes": b"\x00\xff",
        "keys": {1: "a", 2: "b"},
        "infinity": float("inf"),
        "huge": 2**70,
        "object": object(),
        "nested": [[[{}]]],
    }[kind]


async def publish(board: Board, body: bytes, **headers: str) -> None:
    """Publish a request as any NATS client would."""
    node = await board.node()
    items = [(name.replace("_", "-"), value) for name, value in headers.items()]
    await node.store.stored("cb.request.flow", body, H.encode(items) if items else None)


# -- requests ---------------------------------------------------------------------------------------------


async def the_only_run(board: Board) -> Any:
    """The summary of the one run there is, once it has ended."""
    client = await board.client()

    async def ended() -> Any:
        runs = await client.runs()
        return runs[0] if runs and runs[0].finished else None

    summary = await eventually(ended)
    assert len(await client.runs()) == 1
    return summary


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b'{"n": 2, "text": "\xc3\xa4"}', {}, {"sum": 3, "text": "ä"}),
        (b"  \n{}", {}, {"sum": 6, "text": ""}),
        (b"", {}, {"sum": 6, "text": ""}),
        (b'{"n": 2}', {"Content_Type": "application/json"}, {"sum": 3, "text": ""}),
        (b'{"n": 2}', {"Content_Type": "application/json; charset=utf-8"}, {"sum": 3, "text": ""}),
        (packed({"n": 2}), {}, {"sum": 3, "text": ""}),
        (packed({"n": 2}), {"Content_Type": "application/msgpack"}, {"sum": 3, "text": ""}),
    ],
)
async def test_a_request_by_any_client_becomes_a_run(
    board: Board, body: bytes, headers: dict[str, str], expected: Any
) -> None:
    """JSON or msgpack, told or recognized; without any header it has an id made from where it stands."""
    await board.host(flow, add)
    await publish(board, body, **headers)
    summary = await the_only_run(board)
    assert (summary.status, summary.workflow, summary.calls) == ("completed", "flow", 1)
    client = await board.client()
    assert await client.result(summary.run, SOON) == expected
    as_json = not body[:1] or body.lstrip()[:1] == b"{"
    (entry,) = await board.entries(summary.run, "done")
    assert (entry.headers.get(H.CONTENT_TYPE) == H.JSON) == as_json
    if as_json:
        assert json.loads(entry.body)["value"] == expected


@pytest.mark.parametrize("header", ["Nats_Msg_Id", "Cb_Run"])
async def test_the_runs_id_is_the_requesters(board: Board, header: str) -> None:
    """From the header that it gave."""
    await board.host(flow, add)
    await publish(board, b"{}", **{header: "my-own-id"})
    assert (await board.done("my-own-id")).status == "completed"


async def test_an_id_made_from_where_the_request_stands(board: Board) -> None:
    """It is the same for whoever drives the run: a second driver goes on with the first one's journal."""
    first = await board.host(gated_flow, gated)
    node = await board.node()
    await node.store.stored("cb.request.gated_flow", b"{}")
    await until(lambda: RAN["gated"] == 1)
    await board.kill(first)
    await board.host(gated_flow, gated, add)
    GATE.set()
    summary = await the_only_run(board)
    assert (summary.status, summary.epoch) == ("completed", 2)


async def test_the_same_request_again_is_the_same_run(board: Board) -> None:
    """Within the server's memory for ids, and beyond it; while it runs, and when it has ended."""
    await board.host(flow, gated_flow, add, gated)
    client = await board.client()
    node = await board.node()
    run = await client.submit("gated_flow", {"n": 1}, run="only-once")
    assert await client.submit("gated_flow", {"n": 1}, run="only-once") == run
    await until(lambda: RAN["gated"] == 1)
    for _ in range(3):
        head = H.encode([(H.RUN, run)])  # no message id: the server takes it for another message
        await node.store.stored("cb.request.gated_flow", b'{"n": 1}', head)
    GATE.set()
    assert await client.result(run, SOON) == 2
    await node.store.stored("cb.request.gated_flow", b'{"n": 1}', H.encode([(H.RUN, run)]))
    await board.emptied("REQUESTS")
    assert await client.result(run, SOON) == 2
    assert RAN == {"gated": 1, "add": 1}
    assert len(await board.entries(run, "done")) == 1


async def test_many_runs_at_once(board: Board) -> None:
    """A driver holds them all."""
    await board.host(gated_flow, gated, add)
    client = await board.client()
    runs = await asyncio.gather(*(client.submit("gated_flow", {"n": n}) for n in range(300)))
    await until(lambda: RAN["gated"] == 256)
    GATE.set()
    assert await asyncio.gather(*(client.result(run, SOON) for run in runs)) == list(range(1, 301))


# -- outcomes ---------------------------------------------------------------------------------------------------


async def test_a_run_that_raises(board: Board) -> None:
    """The exception is the cause, with its own class and the remote traceback."""
    await board.host(failing_flow)
    with pytest.raises(RunFailed, match="Odd: no") as caught:
        await board.run(failing_flow)
    assert caught.value.fields["workflow"] == "failing_flow"
    cause = caught.value.__cause__
    assert isinstance(cause, Odd)
    assert "remote traceback" in "\n".join(cause.__notes__)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("kind", ["large", "bytes", "keys", "infinity", "huge", "object", "nested"])
async def test_results_that_are_hard_to_tell(board: Board, kind: str, as_json: bool) -> None:  # noqa: FBT001 - a case
    """Whatever a workflow returns, its run ends: with the value, or with a typed error."""
    await board.host(odd_result_flow)
    node = await board.node()
    body = json.dumps({"kind": kind}).encode() if as_json else packed({"kind": kind})
    await node.store.stored("cb.request.odd_result_flow", body, H.encode([(H.RUN, "r")]))
    client = await board.client()
    if kind in {"huge", "object"}:
        with pytest.raises(RunFailed) as caught:
            await client.result("r", SOON)
        assert isinstance(caught.value.__cause__, InvalidResult)
        return
    found = await client.result("r", SOON)
    plain = {
        "large": b"x" * 100_000,
        "bytes": b"\x00\xff",
        "keys": {1: "a", 2: "b"},
        "infinity": float("inf"),
        "nested": [[[{}]]],
    }[kind]
    if as_json and kind in {"large", "bytes", "keys", "infinity"}:
        assert found is None or found
    else:
        assert found == plain


async def test_unknown_runs_and_late_results(board: Board) -> None:
    """Typed errors: no such run, no result yet, no such id."""
    await board.host(gated_flow, gated, add)
    client = await board.client()
    with pytest.raises(RunUnknown):
        await client.status("no-such-run")
    run = await client.submit("gated_flow")
    with pytest.raises(ResultTimeout) as caught:
        await client.result(run, 0.02)
    assert caught.value.fields == {"run": run, "timeout": 0.02}
    GATE.set()
    assert await client.result(run, SOON) == 2
    for bad in ("a b", "*", "", "a.b"):
        with pytest.raises(NameInvalid):
            await client.result(bad or " ", 0.01)
        with pytest.raises(NameInvalid):
            await client.submit(bad or " ")


async def test_what_a_client_refuses_before_it_sends(board: Board) -> None:
    """Arguments that cannot travel, or are too large."""
    client = await board.client(value_limit=1000)
    with pytest.raises(InvalidArguments):
        await client.submit("flow", {"n": object()})
    with pytest.raises(InvalidArguments):
        await client.submit("flow", {"n": 2**70})
    with pytest.raises(ValueTooLarge):
        await client.submit("flow", {"text": "x" * 2000})
    assert (await board.stream("REQUESTS"))["messages"] == 0


@pytest.mark.parametrize("local", [False, True])
async def test_an_outcome_that_its_annotation_does_not_allow(board: Board, *, local: bool) -> None:
    """A workflow's is held against it like a handler's, on a board and without."""
    await board.host(lying_flow)
    client = await board.client()
    with pytest.raises(InvalidResult if local else RunFailed, match="returned what its") as caught:
        await (lying_flow() if local else client.run("lying_flow", timeout=30))
    assert isinstance(caught.value if local else caught.value.__cause__, InvalidResult)


async def test_an_argument_that_the_workflow_has_not(board: Board) -> None:
    """A mistyped name is told, in the place of running with the default."""
    await board.host(flow, add)
    client = await board.client()
    with pytest.raises(InvalidArguments, match="numbr"):
        await client.run("flow", {"numbr": 2}, timeout=30)
    node = await board.node()
    await node.store.stored(subjects.request("flow"), b'{"numbr": 2}', H.encode([(H.RUN, "foreign")]))
    with pytest.raises(RunFailed, match="numbr") as caught:
        await client.result("foreign", 30)
    assert isinstance(caught.value.__cause__, InvalidArguments)
    assert not RAN


async def test_the_type_of_a_result(board: Board) -> None:
    """A client may say what to decode it into."""

    class Outcome(msgspec.Struct):
        """What the workflow gives."""

        sum: int
        text: str

    await board.host(flow, add)
    client = await board.client()
    run = await client.submit("flow", {"n": 1, "text": "x"})
    assert await client.result(run, SOON, type=Outcome) == Outcome(2, "x")
    with pytest.raises(
        InvalidResult, match=f"run {run} of workflow flow gave what is no int: Expected `int`"
    ):
        await client.result(run, SOON, type=int)


async def test_the_status_of_a_run(board: Board) -> None:
    """While it runs, and afterwards."""
    host = await board.host(gated_flow, gated, add)
    client = await board.client()
    run = await client.submit("gated_flow", session="s-1")

    async def running() -> Any:
        runs = await client.runs()
        return next((one for one in runs if one.run == run and one.status == "running"), None)

    summary = await eventually(running)
    assert (summary.workflow, summary.session, summary.driver) == ("gated_flow", "s-1", host.id)
    assert summary.finished == 0
    GATE.set()
    await client.result(run, SOON)

    async def finished() -> Any:
        found = await client.status(run)
        return found if found.finished else None

    summary = await eventually(finished)
    assert (summary.status, summary.calls) == ("completed", 2)
    assert summary.finished >= summary.started


# -- events --------------------------------------------------------------------------------------------------------


async def test_events_of_a_run(board: Board) -> None:
    """What has happened first, then what happens, until it ends; values are left out."""
    host = await board.host(gated_flow, gated, add)
    client = await board.client()
    run = await client.submit("gated_flow")
    await until(lambda: RAN["gated"] == 1)
    seen: list[Any] = []

    async def watch() -> None:
        seen.extend([event async for event in client.events(run)])

    watching = asyncio.create_task(watch())
    await until(lambda: watching.done() or RAN["gated"])
    before = [event.kind async for event in client.events(run, follow=False)]
    assert before == ["owner"]
    GATE.set()
    async with asyncio.timeout(30):
        await watching
    assert [event.kind for event in seen] == ["owner", "result", "result", "done"]
    owner, first, _, done = seen
    assert owner.data["driver"] == host.id
    assert (first.data["future"], first.data["call"]) == (f"{run}:1", "gated.call")
    assert "value" not in first.data
    assert "value" not in done.data
    assert [event.sequence for event in seen] == sorted(event.sequence for event in seen)


async def test_events_that_nobody_reads_to_the_end(board: Board) -> None:
    """Leaving early leaves no subscription behind."""
    await board.host(gated_flow, gated, add)
    client = await board.client()
    run = await client.submit("gated_flow")
    await until(lambda: RAN["gated"] == 1)
    await client.runs()
    lanes = len(client.node.connection.client._lanes)
    events = client.events(run)
    assert (await anext(events)).kind == "owner"
    await events.aclose()  # type: ignore[attr-defined]
    assert len(client.node.connection.client._lanes) == lanes


async def test_a_client_survives_a_restart_of_the_server(board: Board, nats_server: EmbeddedServer) -> None:
    """While it waits for a result, and with the hosts working on."""
    await board.host(gated_flow, gated, add)
    client = await board.client()
    run = await client.submit("gated_flow")
    await until(lambda: RAN["gated"] == 1)
    waiting = asyncio.create_task(client.result(run, SOON))
    await asyncio.to_thread(nats_server.restart)
    GATE.set()
    assert await waiting == 2
    assert await client.run("gated_flow", {"n": 4}, timeout=SOON) == 5


# -- the sync client --------------------------------------------------------------------------------------------


async def test_the_sync_client(board: Board) -> None:
    """The same from plain code, from several threads at once."""
    await board.host(flow, gated_flow, failing_flow, add, gated)
    loop = asyncio.get_running_loop()

    def use(client: SyncClient) -> list[Any]:
        run = client.submit("gated_flow", {"n": 3})
        loop.call_soon_threadsafe(GATE.set)
        found: list[Any] = [client.result(run, SOON)]
        found.append([event.kind for event in client.events(run)])
        found.append(client.run("flow", {"n": 1}))
        with pytest.raises(RunFailed):
            client.run("failing_flow")
        found += [client.status(run).run == run, len(client.runs()) >= 2]
        return found

    def main() -> list[Any]:
        with connect_sync(settings=board.settings()) as client:
            found = use(client)
            results: list[Any] = []
            threads = [
                threading.Thread(target=lambda n=n: results.append(client.run("flow", {"n": n})["sum"]))
                for n in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return [*found, sorted(results)]

    value, kinds, ran, known, several, sums = await asyncio.to_thread(main)
    assert value == 4
    assert kinds[0] == "owner"
    assert kinds[-1] == "done"
    assert ran == {"sum": 2, "text": ""}
    assert known
    assert several
    assert sums == list(range(1, 9))


async def test_a_sync_client_cancels_and_leaves_events_early(board: Board) -> None:
    """Nothing is left behind by leaving early."""
    await board.host(gated_flow, gated, add)

    def main() -> str:
        with connect_sync(settings=board.settings()) as client:
            run = client.submit("gated_flow")
            for event in client.events(run):
                assert event.kind == "owner"
                break
            client.cancel(run, "enough")
            with pytest.raises(Exception, match="enough"):
                client.result(run, SOON)
            return run

    assert await asyncio.to_thread(main)


async def test_connecting(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """By address, by settings, by environment; without any of them a typed error says what to do."""
    await board.host(flow, add)
    async with connect(board.url) as client:
        assert (await client.run("flow", timeout=30))["sum"] == 6
    monkeypatch.setenv("NATS_URL", board.url)
    async with connect() as client:
        assert (await client.run("flow", timeout=30))["sum"] == 6
    monkeypatch.delenv("NATS_URL")
    for make in (connect, connect_sync):
        with pytest.raises(SettingsInvalid, match="NATS_URL"):
            make()


async def test_a_driver_that_cannot_read_a_journal_tries_again(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time-out in between does not leave a run lying about for ever."""
    monkeypatch.setattr("callboard.actors.driver._GIVE_BACK_AFTER", 0.05)
    read = DirectReader.read
    failures = [RequestTimeout("no answer"), RequestTimeout("no answer")]

    async def fail_first(self: DirectReader, stream: str, subject: str, *args: Any, **options: Any) -> Any:
        if failures and subject == "cb.run.r.*":
            raise failures.pop()
        return await read(self, stream, subject, *args, **options)

    monkeypatch.setattr(DirectReader, "read", fail_first)
    node = await board.node()
    await node.store.stored("cb.run.r.pending", packed({"futures": []}))
    await board.host(flow, add)
    await publish(board, b"{}", Cb_Run="r")
    assert isinstance(await board.done("r"), Done)
    assert failures == []


async def test_a_run_leaves_nothing_for_the_collector(board: Board) -> None:
    """Garbage in circles would have to be looked for, and everything else stands still meanwhile."""
    host = await board.host(gated_flow, gated, add)
    client = await board.client()
    run = await client.submit("gated_flow")
    await until(lambda: RAN["gated"] == 1)
    (driver,) = (m for m in host._members if isinstance(m, Driver))
    watched = weakref.ref(driver._runs[run].maker)
    gc.collect()
    gc.disable()
    try:
        GATE.set()
        assert await client.result(run, SOON) == 2
        await until(lambda: not driver._tasks)
        await until(lambda: watched() is None)
    finally:
        gc.enable()
