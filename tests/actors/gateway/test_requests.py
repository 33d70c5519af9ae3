"""Requests that are answered: one round trip on core NATS, in the encoding of the request."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import msgspec
import pytest
from faststream.nats import NatsBroker
from tests.actors.gateway.support import Asker, gates
from tests.support.board import Board
from tests.support.waiting import SOON, eventually, until

from callboard.actors.gateway import Gateway
from callboard.infra import headers as H

pytestmark = pytest.mark.usefixtures("gateway")


async def test_json(ask: Asker) -> None:
    """Plain JSON, no header: the outcome of the run comes back as JSON."""
    answer = await ask("run", "greet", {"name": "Ada"})
    assert answer.body == {
        "run": answer.body["run"],
        "workflow": "greet",
        "status": "completed",
        "value": "Hello Ada",
    }
    assert answer.headers[H.CONTENT_TYPE] == H.JSON
    assert "Nats-Service-Error" not in answer.headers


@pytest.mark.parametrize(
    "headers", [{}, {"Content_Type": H.MSGPACK}, {"content_type": "application/x-msgpack"}]
)
async def test_msgpack(ask: Asker, headers: dict[str, str]) -> None:
    """msgpack, said or seen: the outcome comes back as msgpack, with what JSON has no words for."""
    body = msgspec.msgpack.encode({"value": {"raw": b"\x00\xff", "pairs": {1: "one"}}})
    answer = await ask("run", "echo", body, **headers)
    assert answer.headers[H.CONTENT_TYPE] == H.MSGPACK
    assert answer.body["value"] == {"raw": b"\x00\xff", "pairs": {1: "one"}}


async def test_json_is_read_by_who_knows_the_types(ask: Asker) -> None:
    """Bytes as base64 and numbers as keys: JSON reaches the driver as it was sent."""
    body = {"blob": base64.b64encode(b"four").decode(), "ages": {"7": "Bo", "3": "Al"}}
    assert (await ask("run", "take", body)).body["value"] == [4, [3, 7]]


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, "Grüße 🎭", 1.5, [{"deep": [1, None]}]])
async def test_values(ask: Asker, value: Any) -> None:
    """A value comes back as it is; null is a value."""
    answer = await ask("run", "echo", {"value": value})
    assert answer.body["value"] == value
    assert "error" not in answer.body


@pytest.mark.parametrize("body", [b"", b"{}", b" \n", b"\x80"])
async def test_no_arguments(ask: Asker, body: bytes) -> None:
    """An empty body stands for no arguments."""
    assert (await ask("run", "echo", body)).body["value"] is None


async def test_headers_reach_the_run(ask: Asker, board: Board) -> None:
    """Id, session, priority, deadline and budgets: the same headers as those of ``cb.request.<workflow>``."""
    deadline = time.time() + 60
    headers = {"Cb_Run": "mine-1", "Cb_Session": "s1", "Cb_Priority": "5", "Cb_Deadline": f"{deadline:.3f}"}
    headers["Cb_Budget"] = "key.team-a"
    asked = asyncio.ensure_future(ask("run", "hold", {"name": "a"}, **headers))
    await until(lambda: gates.entered)
    node = await board.node()
    (request,) = await node.reader.read("REQUESTS", "cb.request.hold")
    assert {
        name: request.headers.get(name) for name in (H.RUN, H.SESSION, H.PRIORITY, H.DEADLINE, H.BUDGET)
    } == {
        H.BUDGET: "key.team-a",
        H.RUN: "mine-1",
        H.SESSION: "s1",
        H.PRIORITY: "5",
        H.DEADLINE: f"{deadline:.3f}",
    }
    gates.open.set()
    assert (await asked).body["run"] == "mine-1"
    assert (await ask("status", "mine-1")).body["session"] == "s1"


async def test_same_id_is_the_same_run(ask: Asker) -> None:
    """A client that asks again with its id, at once or later, gets the outcome of the one run."""
    asked = [asyncio.ensure_future(ask("run", "hold", {"name": "a"}, Cb_Run="once")) for _ in range(3)]
    await until(lambda: gates.entered)
    gates.open.set()
    assert {(await one).body["value"] for one in asked} == {"a"}
    assert (await ask("run", "hold", {"name": "a"}, Nats_Msg_Id="once")).body["value"] == "a"
    assert gates.entered == ["a"]


async def test_submit_does_not_wait(ask: Asker) -> None:
    """The id comes back once the request is stored; the result is asked for later."""
    run = (await ask("submit", "hold", {"name": "a"})).body["run"]
    await until(lambda: gates.entered)
    later = asyncio.ensure_future(ask("result", run))
    gates.open.set()
    assert (await later).body == {"run": run, "workflow": "hold", "status": "completed", "value": "a"}


async def test_many_in_parallel(ask: Asker) -> None:
    """Requests do not wait for one another."""
    held = [asyncio.ensure_future(ask("run", "hold", {"name": str(n)})) for n in range(50)]
    quick = await asyncio.gather(*(ask("run", "greet", {"name": str(n)}) for n in range(200)))
    assert [one.body["value"] for one in quick] == [f"Hello {n}" for n in range(200)]
    assert not any(one.done() for one in held)
    gates.open.set()
    assert [one.body["value"] for one in await asyncio.gather(*held)] == [str(n) for n in range(50)]


async def test_nobody_waits_for_the_answer(ask: Asker, gateway: Gateway) -> None:
    """A request without a reply subject is submitted, and holds no place among the waiting."""
    await ask.connection.publish("cb.api.run.hold", b'{"name": "a"}', headers={"Cb-Run": "quiet"})
    await until(lambda: gates.entered)

    async def nobody() -> bool:
        return bool((await ask("health", "all")).body["waiting"] == 0)

    await eventually(nobody)  # the gateway may hear later than the driver that the request is stored
    gates.open.set()
    assert (await ask("result", "quiet")).body["value"] == "a"


async def test_large_values(ask: Asker) -> None:
    """A value that travels by reference comes back whole."""
    answer = await ask("run", "large", msgspec.msgpack.encode({"size": 300_000}))
    assert answer.body["value"] == "x" * 300_000


@pytest.mark.parametrize(("name", "body"), [("large", {"size": 300_000}), ("untold", {})])
async def test_values_that_json_cannot_hold(ask: Asker, name: str, body: Any) -> None:
    """A JSON request has an outcome whatever its workflow returns."""
    answer = await ask("run", name, body)
    assert answer.body.get("value") == "x" * 300_000 or answer.code == "invalid_result"


async def test_answer_above_the_limit(ask: Asker) -> None:
    """An answer that no message can hold is an error that names the run; the run has its result."""
    answer = await ask("run", "large", msgspec.msgpack.encode({"size": 2_000_000}), Cb_Run="huge")
    assert (answer.code, answer.body["run"]) == ("value_too_large", "huge")
    assert answer.body["error"]["fields"]["size"] > 2_000_000

    async def completed() -> bool:
        return bool((await ask("status", "huge")).body["status"] == "completed")

    await eventually(completed)  # the summary is stored after the outcome


async def test_asked_with_faststream(board: Board) -> None:
    """A FastStream client asks and reads the answer without a word about encodings."""
    async with NatsBroker(board.url, logger=None) as broker:
        answer = await broker.request({"name": "Ada"}, "cb.api.run.greet", timeout=SOON)
        assert (await answer.decode())["value"] == "Hello Ada"  # type: ignore[index]
