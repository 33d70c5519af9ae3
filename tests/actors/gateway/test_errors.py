"""Every failure is an answer: a code to match on, a text that says what to do, and the data."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.actors.gateway.support import Asker, gates, greet, hold
from tests.support.board import Board
from tests.support.waiting import SOON, eventually, until

from callboard import workflow
from callboard.actors.gateway import Gateway, verbs
from callboard.infra import headers as H


@pytest.mark.usefixtures("gateway")
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


@pytest.mark.usefixtures("gateway")
async def test_known_as_soon_as_announced(ask: Asker, board: Board) -> None:
    """What was unknown a moment ago is found once a host has announced it."""

    @workflow
    async def newcomer() -> str:
        return "here"

    assert (await ask("run", "newcomer")).code == "unknown_actor"
    await board.host(newcomer)
    assert (await ask("run", "newcomer")).body["value"] == "here"


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("verb", ["run", "submit"])
async def test_missing_argument(ask: Asker, verb: str) -> None:
    """Told before anything is submitted."""
    answer = await ask(verb, "greet", {"nam": "Ada"})
    assert answer.code == "invalid_arguments"
    assert answer.body["error"]["message"] == "greet: name missing; it takes greeting, name"
    assert answer.body["error"]["fields"]["missing"] == ["name"]


@pytest.mark.usefixtures("gateway")
async def test_argument_of_the_wrong_type(ask: Asker) -> None:
    """The driver knows the types: the run fails, and the answer says the same as any."""
    answer = await ask("run", "greet", {"name": 1})
    assert (answer.code, answer.body["status"]) == ("invalid_arguments", "failed")
    assert "$.name" in answer.body["error"]["message"]


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("body", [b"[1]", b'"text"', b"7", b"null", msgspec.msgpack.encode({1: 2})])
async def test_arguments_without_names(ask: Asker, body: bytes) -> None:
    """Arguments are an object."""
    assert (await ask("run", "greet", body)).code == "invalid_arguments"


@pytest.mark.usefixtures("gateway")
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
    assert (await ask("run", "greet", body, **headers)).code in {"request_undecodable", "invalid_arguments"}


@pytest.mark.usefixtures("gateway")
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
        ({"Cb_Budget": "team-a"}, "header_invalid"),
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


@pytest.mark.usefixtures("gateway")
async def test_deadline_of_the_run(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is the run's and the waiting's: the run fails by it, and that is the answer."""
    monkeypatch.setattr(verbs, "_AFTER_DEADLINE", SOON)  # for a driver that is late to say so
    answer = await ask("run", "hold", {"name": "a"}, Cb_Deadline=f"{time.time() + 2:.3f}")
    assert (answer.code, answer.body["status"]) == ("deadline_exceeded", "failed")


@pytest.mark.usefixtures("gateway")
async def test_failing_workflow(ask: Asker) -> None:
    """The workflow's own error: its code, text and data, and where it happened."""
    answer = await ask("run", "fail", {"text": "no such ticker"})
    error = answer.body["error"]
    assert (answer.body["status"], error["code"], error["message"]) == (
        "failed",
        "terminal",
        "no such ticker",
    )
    assert error["fields"]["why"] == "asked for"
    assert error["fields"]["path"] == ["fail"]
    assert "value" not in answer.body
    assert answer.headers["Nats-Service-Error-Code"] == "500"


@pytest.mark.usefixtures("gateway")
async def test_in_msgpack(ask: Asker) -> None:
    """An error too has the encoding of its request."""
    answer = await ask("run", "gret", msgspec.msgpack.encode({}))
    assert (answer.headers[H.CONTENT_TYPE], answer.code) == (H.MSGPACK, "unknown_actor")


async def test_unforeseen(ask: Asker, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked hears of a mistake in the gateway too, without its insides; the log has them, once."""

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(gateway._client.node.journal, "summary", broken)
    with capture_logs() as logs:
        answer = await ask("status", "any")
    assert answer.code == "internal"
    own = [log for log in logs if log.get("component") == "gateway"]  # hosts may tell that they are late
    assert [(log["event"], log["log_level"]) for log in own] == [("request_failed", "error")]


async def test_the_run_goes_on_after_a_timeout(ask: Asker, board: Board) -> None:
    """The waiting ends, not the run: its id is told, and its result can be had."""
    await board.host(hold)
    async with Gateway(board.settings(), wait=0.2):
        answer = await ask("run", "hold", {"name": "a"})
        assert (answer.code, answer.body["status"]) == ("result_timeout", "running")
        assert answer.body["error"]["retryable"] is True
        assert "value" not in answer.body
        run = answer.body["run"]
        await until(lambda: gates.entered)
        assert (await ask("result", run)).code == "result_timeout"
        gates.open.set()

        async def ended() -> Any:
            answer = await ask("result", run)
            return None if answer.code == "result_timeout" else answer.body

        assert (await eventually(ended))["value"] == "a"


async def test_more_than_may_wait(ask: Asker, board: Board) -> None:
    """Above the limit a request is refused at once, with a time to come again; others are answered."""
    await board.host(hold, greet)
    async with Gateway(board.settings(), most_waiting=2):
        held = [asyncio.ensure_future(ask("run", "hold", {"name": str(n)})) for n in range(2)]
        await until(lambda: len(gates.entered) == 2)
        refused = await ask("run", "greet", {"name": "Ada"})
        assert refused.code == "overloaded"
        assert refused.body["error"]["fields"] == {"queue": 2, "retry_after": pytest.approx(0.05, abs=5)}
        assert "run" not in refused.body
        assert "run" in (await ask("submit", "greet", {"name": "Ada"})).body
        gates.open.set()
        await asyncio.gather(*held)
        assert (await ask("run", "greet", {"name": "Ada"})).body["value"] == "Hello Ada"


async def test_not_stored(ask: Asker, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """While JetStream does not take the request, the answer says how to send it again as the same run."""
    await board.host(greet)
    async with Gateway(board.settings()) as gateway:
        assert (await ask("run", "greet", {"name": "Ada"})).body["status"] == "completed"
        monkeypatch.setattr(verbs, "_STORED_WITHIN", 0.3)
        monkeypatch.setattr(gateway._client.node.store, "put", lambda *_: None)
        answer = await ask("submit", "greet", {"name": "Ada"}, Cb_Run="again")
        assert (answer.code, answer.body["run"]) == ("not_stored", "again")
        assert "Cb-Run: again" in answer.body["error"]["message"]
