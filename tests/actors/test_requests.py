"""Requests that cannot be run as they are: whoever waits is told what is wrong with them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.support.board import Board, call_headers, packed
from tests.support.gates import Gate
from tests.support.waiting import SOON

from callboard import tool, workflow
from callboard.actors.bodies import unreadable
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import HeaderInvalid, InvalidArguments, RequestUndecodable, RunFailed, RunIdTaken
from callboard.infra.messages.run import ErrorInfo

GATE = Gate()


@tool
async def gated(number: int) -> int:
    """Wait for the gate."""
    await GATE.wait()
    return number


@workflow
async def flow(number: int = 0) -> int:
    """Give the number back."""
    return number


@workflow
async def other(number: int = 0) -> int:
    """Give something else."""
    return -number


@workflow
async def held(number: int) -> int:
    """End when the gate is open."""
    return await gated(number)


async def published(board: Board, run: str, body: bytes, name: str = "flow", **headers: str) -> None:
    """Publish a request as any NATS client can."""
    node = await board.node()
    items = [(H.RUN, run), *((key.replace("_", "-"), value) for key, value in headers.items())]
    await node.store.stored(subjects.request(name), body, H.encode(items))


async def refused(board: Board, run: str) -> ErrorInfo:
    """The error with which a run ended."""
    done = await board.done(run)
    assert done.status == "failed"
    assert done.error is not None
    return done.error


# -- headers ----------------------------------------------------------------------------------

BAD_HEADERS = [
    ("Cb_Deadline", "soon", "unix seconds"),
    ("Cb_Deadline", "inf", "unix seconds"),
    ("Cb_Priority", "high", "whole number"),
    ("Cb_Priority", "9" * 30, "whole number"),
]


@pytest.mark.parametrize(("name", "value", "wanted"), BAD_HEADERS)
async def test_a_bad_header_is_told_to_who_waits(board: Board, name: str, value: str, wanted: str) -> None:
    """The run under the id that the request gave fails with a typed error; there is no dead letter."""
    await board.host(flow)
    await published(board, "bad-1", b"{}", **{name: value})
    error = await refused(board, "bad-1")
    header = name.replace("_", "-")
    assert error.code == HeaderInvalid.code
    assert error.fields == {"header": header, "value": value}
    assert header in error.message
    assert repr(value) in error.message
    assert wanted in error.message
    await board.emptied("REQUESTS")
    assert (await board.stream("DEAD"))["messages"] == 0


async def test_who_waits_gets_the_error_of_a_header(board: Board) -> None:
    """It is raised as any error of a run, and the run is among those that failed."""
    await board.host(flow)
    client = await board.client()
    run = subjects.new_id()
    head = H.encode([(H.RUN, run), (H.MESSAGE_ID, run), (H.DEADLINE, "inf")])
    await client.node.store.stored(subjects.request("flow"), b'{"number": 1}', head)
    with pytest.raises(RunFailed, match=r"Cb-Deadline is 'inf'") as caught:
        await client.result(run, SOON)
    assert isinstance(caught.value.__cause__, HeaderInvalid)


async def test_without_an_id_nobody_waits(board: Board) -> None:
    """So a letter tells an operator, and says which header it is."""
    await board.host(flow)
    node = await board.node()
    await node.store.stored(subjects.request("flow"), b"{}", H.encode([(H.DEADLINE, "soon")]))
    (letter,) = await board.letters()
    assert (letter.actor, letter.reason) == ("flow", "undecodable")
    assert "Cb-Deadline is 'soon'" in letter.detail


# -- bodies -----------------------------------------------------------------------------------

UNREADABLE: list[tuple[bytes, str, str]] = [
    (b'{"number": 1,}', "", r"looks like JSON, which breaks at byte 13 \(line 1, column 14\), at '}'"),
    (b'{"number": 1,\n "more" 2}', "", r"breaks at byte 22 \(line 2, column 9\), at '2}'"),
    (b'{"number": ', "", r"looks like JSON, which breaks off at its end"),
    (b'{"number": 1e400}', "", r"looks like JSON, which cannot be read: number out of range"),
    (b"seven please", "", r"looks like plain text \('seven please'\)"),
    (b"seven", "application/json", r"looks like plain text \('seven'\)"),
    (
        b'{"number": 1}',
        "application/msgpack",
        r"looks like JSON, but header Content-Type says application/ms",
    ),
    (b'{"number": "se\xffven"}', "", r"looks like JSON, which breaks at byte 14: "),
    (b"\x81\xa6number", "", r"looks like msgpack, which breaks off at its end"),
    (b"\x81\xa6number\x01\x02", "", r"looks like msgpack, which breaks at byte 9"),
    (b"", "application/msgpack", r"is empty, but header Content-Type says application/msgpack"),
    (b"\xc1\xff\x00", "", r"neither JSON nor msgpack"),
    (b"\xff\xfe{\x00}\x00", "application/json", r"neither JSON nor msgpack"),
]


@pytest.mark.parametrize(
    "body", [b"[1, 2]", b"7", b"null", b"seven please", b'{"number": ', b' {"number": "x"}']
)
async def test_who_writes_text_is_answered_in_json(board: Board, body: bytes) -> None:
    """No arguments in msgpack begin with a character of text, so who sends some cannot read msgpack."""
    await board.host(flow)
    node = await board.node()
    ended = await node.connection.client.subscribe("cb.journal.bad-1.done")
    await node.connection.flush()
    await published(board, "bad-1", body)
    outcome = msgspec.json.decode((await ended.next_msg(SOON)).data)
    assert (outcome["run"], outcome["status"]) == ("bad-1", "failed")


@pytest.mark.parametrize(("body", "kind", "text"), UNREADABLE)
async def test_a_body_that_cannot_be_read(board: Board, body: bytes, kind: str, text: str) -> None:
    """The error says what it looks like, where it breaks, and how to send it instead."""
    await board.host(flow)
    await published(board, "bad-1", body, **({"Content_Type": kind} if kind else {}))
    error = await refused(board, "bad-1")
    assert error.code == RequestUndecodable.code
    with pytest.raises(RequestUndecodable, match=text):
        raise RequestUndecodable(error.message)
    assert "send the arguments as" in error.message


NO_OBJECT: list[tuple[bytes, str]] = [
    (b"[1, 2]", "JSON, but no object"),
    (b'"text"', "JSON, but no object"),
    (b"null", "JSON, but no object"),
    (packed([1, 2]), "msgpack, but no map"),
    (packed(b"\x00\xff"), "msgpack, but no map"),
]


@pytest.mark.parametrize(("body", "text"), NO_OBJECT)
async def test_a_body_without_names(board: Board, body: bytes, text: str) -> None:
    """What can be read but has no names for the arguments is told as that."""
    await board.host(flow)
    await published(board, "bad-1", body)
    error = await refused(board, "bad-1")
    assert error.code == InvalidArguments.code
    assert text in error.message


async def test_arguments_of_the_wrong_type_are_told_as_before(board: Board) -> None:
    """What can be read, and has names, is held against the annotations."""
    await board.host(flow)
    await published(board, "bad-1", b'{"number": "x"}')
    error = await refused(board, "bad-1")
    assert (error.code, error.message) == (
        InvalidArguments.code,
        "flow.run: Expected `int`, got `str` - at `$.number`",
    )


async def test_a_call_whose_body_is_json(board: Board) -> None:
    """Whoever takes part by hand is told that arguments of calls are msgpack."""
    await board.host(gated)
    node = await board.node()
    await node.store.stored("cb.call.gated.any.1", b'{"number": 1}', call_headers("r1:1"))
    await board.entries("r1", "result")
    (result,) = await board.results("r1")
    assert result.error is not None
    assert result.error.code == InvalidArguments.code
    assert result.error.message.endswith("it looks like JSON, and must be msgpack")


# -- ids --------------------------------------------------------------------------------------


async def test_an_id_that_another_workflow_has(board: Board) -> None:
    """It is refused while that runs, when it has ended, and says which run has the id."""
    await board.host(flow, other, held, gated)
    client = await board.client()
    run = await client.submit("held", {"number": 1}, run="mine")
    with pytest.raises(RunIdTaken, match="run id mine is taken by a run of workflow held") as caught:
        await client.submit("other", {"number": 1}, run="mine")
    assert caught.value.fields == {"run": "mine", "workflow": "held"}
    GATE.set()
    assert await client.result(run, SOON) == 1
    await board.emptied("REQUESTS")
    with pytest.raises(RunIdTaken):
        await client.submit("other", {"number": 1}, run="mine")


async def test_an_id_that_has_run_with_other_arguments(board: Board) -> None:
    """It is refused; the same arguments are the same run, in whichever encoding."""
    await board.host(flow)
    client = await board.client()
    assert await client.run("flow", {"number": 7}, run="mine", timeout=SOON) == 7
    with pytest.raises(RunIdTaken, match="with other arguments"):
        await client.submit("flow", {"number": 8}, run="mine")
    for as_json in (True, False):
        assert await client.run("flow", {"number": 7}, run="mine", as_json=as_json, timeout=SOON) == 7


async def test_an_id_whose_run_nobody_has_begun(board: Board) -> None:
    """The request that is stored already is looked at."""
    await (await board.host(flow, other)).stop()
    client = await board.client()
    await client.submit("flow", {"number": 1}, run="mine")
    await client.submit("flow", {"number": 1}, run="mine")
    for name, number in (("other", 1), ("flow", 2)):
        with pytest.raises(RunIdTaken):
            await client.submit(name, {"number": number}, run="mine")
    await board.host(flow, other)
    assert await client.result("mine", SOON) == 1


@pytest.mark.parametrize(("name", "number"), [("other", 1), ("flow", 2)])
async def test_an_id_that_any_client_has_used_again(board: Board, name: str, number: int) -> None:
    """What the driver finds to be another request under the id of a run becomes a dead letter."""
    await board.host(flow, other)
    await published(board, "mine", b'{"number": 1}')
    assert msgspec.msgpack.decode((await board.done("mine")).value) == 1
    await published(board, "mine", b'{"number": 1 }')
    await board.emptied("REQUESTS")
    await published(board, "mine", msgspec.json.encode({"number": number}), name)
    (letter,) = await board.letters()
    assert (letter.actor, letter.reason) == (name, "run_id_taken")
    assert "run id mine is taken by a run of workflow flow" in letter.detail
    await board.emptied("REQUESTS")


async def test_the_order_of_names_does_not_matter(board: Board) -> None:
    """Two clients may write the same arguments in another order."""

    @workflow(name="pair")
    async def pair(a: dict[str, Any], b: int) -> int:
        return int(a["x"]) + b

    await board.host(pair)
    client = await board.client()
    assert await client.run("pair", {"a": {"x": 1, "y": 2}, "b": 2}, run="mine", timeout=SOON) == 3
    assert await client.run("pair", {"b": 2, "a": {"y": 2, "x": 1}}, run="mine", timeout=SOON) == 3


def test_an_empty_body_without_a_header() -> None:
    """Nothing is said of a header that is not there."""
    error = unreadable("flow", b"", as_json=True, said="")
    assert error is not None
    assert "the body of the request is empty; send the arguments as a JSON object" in error.message
