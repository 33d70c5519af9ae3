"""Calls that a full lane refused for longer than the server knows the id of their first sending."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.support.board import Board, instance
from tests.support.gates import Gate, anew
from tests.support.waiting import until

from callboard import tool, workflow
from callboard.actors import caller, maker

RAN: Counter[int] = anew(Counter())
GATE = Gate()


@tool(concurrency=1, max_queue=1)
async def narrow(number: int) -> int:
    """One at a time."""
    RAN[number] += 1
    await GATE.wait()
    return number


@workflow
async def crowd(count: int) -> int:
    """More than may wait."""
    return sum(await asyncio.gather(*(narrow(number) for number in range(count))))


async def test_a_refused_call_is_sent_again_under_its_last_id(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its first one, which the server has forgotten, it would be another message, and run twice."""
    monkeypatch.setattr(maker, "QUIET", 1.5)  # in the place of 15 s
    monkeypatch.setattr(caller, "QUIET", 1.5)
    monkeypatch.setattr(maker, "KNOWN_IDS", 2.5)  # of 100
    again: list[str] = []
    send_again = maker.CallMaker.send_again

    def noting(self: maker.CallMaker, now: float) -> None:
        again.extend(future.message_id for future in self.open.values() if future.sent)
        send_again(self, now)

    monkeypatch.setattr(maker.CallMaker, "send_again", noting)
    await board.host(narrow)
    others = [await board.host(narrow) for _ in range(3)]
    for host in others:
        instance(host, narrow).set_standby(standby=True)
    await board.host(crowd)
    node = await board.node()
    info = await node.topology.api("STREAM.INFO.CALLS")
    config = info["config"] | {"duplicate_window": 3_000_000_000}  # of 120 s
    assert "error" not in await node.topology.api("STREAM.UPDATE.CALLS", config)
    run = await board.submit(crowd, count=4)
    await until(lambda: len(RAN) == 1)
    # Longer than ids are known. One runs, one waits, two are refused again and again.
    await asyncio.sleep(5.0)
    for host in others:
        instance(host, narrow).set_standby(standby=False)
    await until(lambda: len(RAN) == 4)
    del again[:]
    await until(lambda: len(again) >= 8)  # all run; their maker hears nothing, and sends again
    GATE.set()
    assert (await board.done(run)).status == "completed"
    assert set(RAN.values()) == {1}
