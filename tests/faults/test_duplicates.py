"""Messages that come more than once: copies of calls and of requests, at once and later."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from tests.faults import evidence
from tests.faults.board import PATIENT, STUCK, Board
from tests.faults.checker import Allowed

pytestmark = pytest.mark.fault


class Copier:
    """Hears all calls and requests, and publishes copies of some of them.

    Args:
        client: of nats-py; board: whose dice are thrown.
        share: of the messages that are copied.
        keep_id: whether copies carry the message id, by which the server recognises them.
    """

    def __init__(self, client: Client, board: Board, *, share: float, keep_id: bool) -> None:
        self._client = client
        self._board = board
        self._share = share
        self._keep_id = keep_id
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: set[tuple[str, str]] = set()
        self.copies = 0

    async def start(self) -> None:
        """Begin to copy."""
        for subject in ("cb.call.>", "cb.request.>"):
            await self._client.subscribe(subject, cb=self._heard)
        await self._client.flush()

    async def _heard(self, message: Msg) -> None:
        headers = dict(message.headers or {})
        key = (
            headers.get("Cb-Future", message.subject),
            headers.get("Cb-Attempt", headers.get("Cb-Run", "")),
        )
        if key in self._seen or self._board.chance.random() > self._share:
            return
        self._seen.add(key)
        if not self._keep_id:
            headers.pop("Nats-Msg-Id", None)
        headers = {name: value for name, value in headers.items() if not name.startswith("Nats-Sch")}
        for _ in range(self._board.chance.randint(1, 3)):
            task = asyncio.create_task(self._again(message, headers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _again(self, message: Msg, headers: dict[str, str]) -> None:
        await asyncio.sleep(self._board.chance.choice((0.0, 0.001, 0.02, 1.0)))
        await self._client.publish(message.subject, message.data, headers=dict(headers))
        self.copies += 1

    async def finish(self) -> None:
        """All copies that were begun are out."""
        while self._tasks:
            await asyncio.gather(*self._tasks)
        await self._client.flush()


@pytest.mark.parametrize("keep_id", [True, False], ids=["same_id", "no_id"])
@pytest.mark.fault(seeds=(1, 2))
async def test_copies(board: Board, keep_id: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Most calls and requests come up to four times; every run has one outcome, and finished calls rest."""
    await asyncio.gather(
        board.hosts(3, "tools", dead_after=PATIENT), board.hosts(2, "workflows", dead_after=PATIENT)
    )
    async with evidence.connected(board.server.url) as client:
        copier = Copier(client, board, share=0.7, keep_id=keep_id)
        await copier.start()
        await board.load(50)
        await board.settled()
        await copier.finish()
        assert copier.copies > 100
        await board.verdict(Allowed(starts=1 if keep_id else 4, late=0.0 if keep_id else 1.0))


async def test_same_request_at_once(board: Board) -> None:
    """Twenty copies of one request, in one go and without message ids, are one run."""
    await asyncio.gather(
        board.hosts(1, "tools", dead_after=PATIENT), board.hosts(2, "workflows", dead_after=PATIENT)
    )
    async with evidence.connected(board.server.url) as client:
        heard = await client.subscribe("cb.request.>")
        await client.flush()
        await board.submit("chain", number=3, steps=3, pause=0.05)
        request = await heard.next_msg(STUCK)
        headers = {name: value for name, value in (request.headers or {}).items() if name != "Nats-Msg-Id"}
        for _ in range(20):
            await client.publish(request.subject, request.data, headers=dict(headers))
        await client.flush()
    await board.verdict(Allowed(starts=1, late=0.0))
