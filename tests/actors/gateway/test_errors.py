"""Every failure is an answer: a code to match on, a text that says what to do, and the data."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from callboard.actors.gateway import Gateway
from callboard.infra import headers as H
from tests.actors.gateway.conftest import Asker, gates, greet, hold
from tests.support.board import Board
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("gateway")


@pytest.mark.parametrize("verb", ["run", "submit"])
async def test_unknown_workflow(ask: Asker, verb: str) -> None:
    """Nobody has announced it: told at once, with what was probably meant; no run is made."""
    answer = await ask(verb, "gret", {"name": "Ada"})
    assert answer.code == "unknown_actor"
    assert "did you mean 'greet'?" in answer.body["error"]["message"]
    assert answer.body["error"]["fields"] == {"actor": "gret"}
    assert "run" not in answer.body
    assert answer.headers["Nats-Service-Error-Code"] == "404"
    assert answer.headers["Nats-Service-Error"] == answer.body["error"]["message"]


async def test_known_as_soon_as_announced(ask: Asker, board: Board) -> None:
    """What was unknown a moment ago is found once a host has announced it."""
    from callboard import workflow

    @workflow
    async def newcomer() -> str:
        return "here"

    assert (await ask("run", "newcomer")).code == "unknown_actor"
    await board.host(newcomer)
    assert (await ask("run", "newcomer")).body["value"] == "here"


@pytest.mark.parametrize("verb", ["run", "submit"])
async def test_missing_argument(ask: Asker, verb: str) -> None:
    """Told before anything is submitted."""
    answer = await ask(verb, "greet", {"nam": "Ada"})
    assert answer.code == "invalid_arguments"
    assert answer.body["error"]["message"] == "greet: name missing; it takes greeting, name"
    assert answer.body["error"]["fields"]["missing"] == ["name"]


async def test_argument_of_the_wrong_type(ask: Asker) -> None:
    """The driver knows the types: the run fails, and the answer says the same as any."""
    answer = await ask("run", "greet", {"name": 1})
    assert (answer.code, answer.body["status"]) == ("invalid_arguments", "failed")
    assert "$.name" in answer.body["error"]["message"]


@pytest.mark.parametrize("body", [b"[1]", b'"text"', b"7", b"null", msgspec.msgpack.encode({1: 2})])
async def test_arguments_without_names(ask: Asker, body: bytes) -> None:
    """Arguments are an object."""
    assert (await ask("run", "greet", body)).code == "invalid_arguments"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{", {}),
        (b"name=Ada", {}),
        (b"\xff\xfe", {}),
        (b'{"name": "\xff"}', {}),
        (b"[" * 100_000, {}),
        (b"\x81\xa4name", {"Content_Type": H.MSGPACK}),
        (b'{"name": "Ada"}', {"Content_Type": H.MSGPACK}),
        (b"\x81\xa4name\xa3Ada", {"Content_Type": H.JSON}),
        (b"\x81" * 100_000, {"Content_Type": H.MSGPACK}),
    ],
)
async def test_undecodable(ask: Asker, body: bytes, headers: dict[str, str]) -> None:
    """What is no JSON, or no msgpack where that was said, is told as such."""
    assert (await ask("run", "greet", body, **headers)).code in {"undecodable", "invalid_arguments"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Cb_Run": "a.b"}, "name_invalid"),
        ({"Cb_Run": "*"}, "name_invalid"),
        ({"Cb_Run": "x" * 200}, "name_invalid"),
        ({"Nats_Msg_Id": "a b"}, "name_invalid"),
        ({"Cb_Priority": "high"}, "header_invalid"),
        ({"Cb_Priority": "1e3"}, "header_invalid"),
        ({"Cb_Priority": "9" * 40}, "header_invalid"),
        ({"Cb_Deadline": "soon"}, "header_invalid"),
        ({"Cb_Deadline": "nan"}, "header_invalid"),
        ({"Cb_Deadline": "inf"}, "header_invalid"),
        ({"Cb_Deadline": "-5"}, "header_invalid"),
        ({"Cb_Deadline": "1"}, "deadline_exceeded"),
    ],
)
async def test_headers(ask: Asker, headers: dict[str, str], code: str) -> None:
    """A header that cannot be used is named; nothing is submitted."""
    assert (await ask("run", "greet", {"name": "Ada"}, **headers)).code == code


async def test_the_run_goes_on_after_a_timeout(ask: Asker, board: Board) -> None:
    """The waiting ends, not the run: its id is told, and its result can be had."""
    async with Gateway(board.settings(), wait=0.2) as impatient:
        await impatient_alone(ask, impatient)


async def impatient_alone(ask: Asker, impatient: Gateway) -> None:
    """Ask until the impatient one of two gateways has taken the request."""
    while True:
        asked = asyncio.ensure_future(ask("run", "hold", {"name": "a"}))
        done, _ = await asyncio.wait([asked], timeout=1.0)
        if done:
            break
    answer = asked.result()
    assert (answer.code, answer.body["status"]) == ("result_timeout", "running")
    assert answer.body["error"]["retryable"] is True
    assert "value" not in answer.body
    gates.open.set()
    assert (await ask("result", answer.body["run"])).body["value"] == "a"
