"""A signal is given once, whoever gives it and however often it is sent."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.support.board import Board
from tests.support.waiting import until

import callboard
from callboard import workflow
from callboard.actors.driver import Driver


@workflow
async def two() -> list[Any]:
    """Two signals of one name."""
    return [await callboard.signal("go"), await callboard.signal("go")]


async def test_a_signal_whose_ack_is_lost_is_given_once(board: Board) -> None:
    """It is stored, and sent again after a reconnect."""
    await board.host(two)
    client = await board.client()
    run = await client.submit(two.name, {})
    store = client.node.store
    send = store._send
    sent: list[str] = []

    def sending(entry: Any) -> None:
        send(entry)
        if entry.subject.endswith(".signal") and not sent:
            sent.append(entry.subject)
            asyncio.get_running_loop().call_soon(store._resend_all)  # its ack is not there yet

    store._send = sending  # type: ignore[method-assign]
    await client.signal(run, "go", "first")
    assert sent
    await client.signal(run, "go", "second")
    assert msgspec.msgpack.decode((await board.done(run)).value) == ["first", "second"]
    assert len(await board.entries(run, "signal", 2)) == 2


async def test_a_signal_heard_before_the_journal_is_given_once(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that takes a run over hears a signal that the last one still gives, then reads the journal."""
    old = await board.host(two)
    run = await board.submit(two)
    await board.entries(run, "owner")
    driver_old = next(member for member in old._members if isinstance(member, Driver))

    def waits() -> bool:
        own = driver_old.runs.get(run)
        return own is not None and own.maker.waits is not None and bool(own.maker.waits.open)

    await until(waits)
    new = await board.host(two)
    gate = asyncio.Event()
    read = new.node.journal.read

    async def late(name: str, kind: str = ">", after: int = 0) -> Any:
        await gate.wait()
        return await read(name, kind, after)

    monkeypatch.setattr(new.node.journal, "read", late)
    # The old one stands still for a moment: it is taken for dead, and its request goes to the new one.
    request = driver_old.runs[run].request.delivered
    driver_old.pause()
    old.node.connection.publish(request.reply, b"-NAK")
    driver_new = next(member for member in new._members if isinstance(member, Driver))
    await until(lambda: run in driver_new.runs)
    client = await board.client()
    await client.signal(run, "go", "first")
    await board.entries(run, "result")  # the old one has given it
    gate.set()
    await board.entries(run, "owner", 2)
    await client.signal(run, "go", "second")
    assert msgspec.msgpack.decode((await board.done(run)).value) == ["first", "second"]
