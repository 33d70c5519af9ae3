"""What a gateway reads for its answers: little, however many ask."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from tests.actors.gateway.support import Asker, greet
from tests.support.board import Board

from callboard.actors.gateway import Gateway
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.direct import _Batch

_ASKERS = 40


class Reads:
    """Counts what a gateway reads from streams.

    Attributes:
        messages, asked: by stream.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.messages: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        reader = gateway._client.node.reader
        get = reader._get

        async def counted(stream: str, query: dict[str, Any], timeout: float = 5.0) -> _Batch:
            batch = await get(stream, query, timeout)
            self.asked[stream] += 1
            self.messages[stream] += len(batch.found)
            return batch

        reader._get = counted  # type: ignore[method-assign]


async def stored(ask: Asker, runs: Iterable[str]) -> None:
    """Requests that nobody takes: their workflow has no driver."""
    stream = ask.connection.jetstream()
    for run in runs:
        await stream.publish(subjects.request("nobody"), b"{}", headers={H.RUN: run, H.MESSAGE_ID: run})


async def statuses(ask: Asker, runs: Iterable[str]) -> list[str]:
    """How these runs stand, asked at once; an error's code where there is one."""
    answers = await asyncio.gather(*(ask("status", run) for run in runs))
    return [answer.code or answer.body["status"] for answer in answers]


async def test_backlog_is_read_once(ask: Asker, board: Board) -> None:
    """Whoever asks for runs without a journal, at once or one after the other: no request is read anew."""
    async with Gateway(board.settings()) as gateway:
        reads = Reads(gateway)
        await stored(ask, (f"r{n}" for n in range(300)))
        assert set(await statuses(ask, (f"x{n}" for n in range(_ASKERS)))) == {"run_unknown"}
        for verb in ("status", "result", "cancel"):
            assert (await ask(verb, "another")).code == "run_unknown"
        assert reads.messages[subjects.REQUESTS] == 300
        assert set(await statuses(ask, (f"r{n}" for n in range(_ASKERS)))) == {"accepted"}
        assert reads.messages[subjects.REQUESTS] == 300 + _ASKERS  # each is still there: seen by reading it
        await stored(ask, ["new"])
        assert await statuses(ask, ["new", "x"]) == ["accepted", "run_unknown"]
        assert reads.messages[subjects.REQUESTS] <= 300 + _ASKERS + 2


async def test_many_share_a_read_of_the_backlog(ask: Asker, board: Board) -> None:
    """Who asks while it is read waits for the next reading, together with all others who do."""
    async with Gateway(board.settings()) as gateway:
        reads = Reads(gateway)
        await stored(ask, ["r"])
        assert set(await statuses(ask, (f"x{n}" for n in range(_ASKERS)))) == {"run_unknown"}
        assert reads.asked[subjects.REQUESTS] < _ASKERS


async def test_request_that_is_gone(ask: Asker, board: Board) -> None:
    """What was seen in the backlog and is there no more is no run."""
    node = await board.node()
    async with Gateway(board.settings()):
        await stored(ask, ["r1", "r2"])
        assert await statuses(ask, ["r1", "r2"]) == ["accepted", "accepted"]
        await node.topology.delete_message(subjects.REQUESTS, 1)
        assert await statuses(ask, ["r1", "r2"]) == ["run_unknown", "accepted"]
        await stored(ask, ["r3"])
        assert await statuses(ask, ["r1", "r3"]) == ["run_unknown", "accepted"]


async def test_stream_made_anew(ask: Asker, board: Board) -> None:
    """Its sequences begin at 1 again; what was known of the one before is forgotten."""
    node = await board.node()
    async with Gateway(board.settings()):
        await stored(ask, ["r1", "r2", "r3"])
        assert await statuses(ask, ["r1", "r3"]) == ["accepted", "accepted"]
        await node.topology.api(f"STREAM.DELETE.{subjects.REQUESTS}")
        await node.topology.ensure()
        await stored(ask, ["n1", "n2"])
        assert await statuses(ask, ["n1", "n2"]) == ["accepted", "accepted"]
        assert await statuses(ask, ["r1", "r3"]) == ["run_unknown", "run_unknown"]


async def test_only_so_much_is_remembered(ask: Asker, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a backlog without end the newest; the rest is told as unknown."""
    monkeypatch.setattr("callboard.actors.backlog._REMEMBERED", 10)
    async with Gateway(board.settings()):
        await stored(ask, (f"r{n}" for n in range(30)))
        assert await statuses(ask, ["r19", "r20", "r29"]) == ["run_unknown", "accepted", "accepted"]


async def test_many_share_a_read_of_the_registry(ask: Asker, board: Board) -> None:
    """However many ask what there is, it is read a few times; and who asks later hears of what is new."""
    await board.host(greet)
    async with Gateway(board.settings(dead_after=10.0)) as gateway:
        reads = Reads(gateway)
        asked = [ask(verb, "all") for verb in ("actors", "health") for _ in range(_ASKERS)]
        answers = await asyncio.gather(*asked)
        assert all(len(answer.body["hosts"]) == 1 for answer in answers[:_ASKERS])
        assert all(answer.body["hosts"] == 1 for answer in answers[_ASKERS:])
        assert reads.asked[subjects.REGISTRY] < _ASKERS
        await board.host(greet)
        assert len((await ask("actors", "all")).body["hosts"]) == 2
        assert (await ask("health", "all")).body["hosts"] == 2
