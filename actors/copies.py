"""Two messages of one call: which of them is to run.

What makes two messages one is the message id, and the server knows the ids of two minutes. A maker that
goes on after another one, later than that, sends calls again of which it cannot know whether they were
sent before. Such a call (``Cb-Again``), and any call that has waited for so long that it may have a copy,
is asked for among the hosts of its actor before it starts: one that runs elsewhere does not run here, and
of two that are asked for at the same time the one that was stored first runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.errors import CallboardError
from callboard.infra.messages.control import Calls, CallsQuery

if TYPE_CHECKING:
    from callboard.actors.host import Host
    from callboard.actors.inbound import Call

KNOWN_IDS = 100.0
"""Seconds for which the server surely knows the id of a message."""
_PATIENCE = 10.0
_GATHERING = 0.005
_ANSWER = 1.0
_AGAIN = 0.1
_decode = msgspec.msgpack.Decoder(Calls).decode


def may_have_copy(call: Call) -> bool:
    """Whether another message of the same call may be about."""
    return H.AGAIN in call.headers or time.time() - call.stored_at > KNOWN_IDS


class Twin(Enum):
    """What becomes of a message whose call may have another one."""

    NONE = 0
    """No other message of the call is about: it is to run."""
    OTHER = 1
    """Another message of it runs, or will: this one is done with."""
    SAME = 2
    """This very message is with another host, too: it is that one's."""


class Copies:
    """Asks other hosts for calls that may have copies, many in one go.

    Args:
        host: who asks.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.rounds = 0
        """How often others were asked."""
        self._asking: dict[str, int] = {}
        self._waiting: dict[str, asyncio.Future[tuple[list[Calls], bool]]] = {}
        self._log = log.get("copies")

    async def find(self, call: Call) -> Twin:
        """Look for another message of the call.

        Waits for hosts that do not answer until they are known to be dead; their calls are given back then.
        """
        if call.attempt == 1 and await self._host.node.journal.attempts(call.run, call.id):
            return Twin.OTHER  # it has failed before, and a schedule brings it back
        ends = time.monotonic() + _PATIENCE
        sequence = self._asking[call.id] = call.delivered.sequence
        try:
            while True:
                answers, complete = await self._asked(call.id)
                running = {answer.running[call.id] for answer in answers if call.id in answer.running}
                asking = {answer.asking[call.id] for answer in answers if call.id in answer.asking}
                if running - {sequence} or any(other < sequence for other in asking):
                    return Twin.OTHER
                if running:
                    return Twin.SAME
                if complete or time.monotonic() > ends:
                    return Twin.NONE
                await asyncio.sleep(_AGAIN)  # one that died answers at once that nobody is there
        finally:
            del self._asking[call.id]

    def _asked(self, future: str) -> asyncio.Future[tuple[list[Calls], bool]]:
        loop = self._host.node.loop
        if not self._waiting:
            loop.call_later(_GATHERING, self._ask_all)
        waiter = self._waiting[future] = loop.create_future()
        return waiter

    def _ask_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._host.caller.spawn(self._round(waiting))

    async def _round(self, waiting: dict[str, asyncio.Future[tuple[list[Calls], bool]]]) -> None:
        query = msgspec.msgpack.encode(CallsQuery(list(waiting)))
        others = [host for host in self._host.watch.alive if host != self._host.id]
        answers = await asyncio.gather(*(self._ask(host, query) for host in others))
        self.rounds += 1
        given = [answer for answer in answers if answer is not None]
        for waiter in waiting.values():
            if not waiter.done():
                waiter.set_result((given, len(given) == len(others)))

    async def at(self, host: str, future: str) -> Calls | None:
        """What this host says of a call; None if it does not answer."""
        return await self._ask(host, msgspec.msgpack.encode(CallsQuery([future])))

    async def _ask(self, host: str, query: bytes) -> Calls | None:
        """What this host has of these calls; None if it does not answer."""
        try:
            return _decode(await self._host.node.connection.request(subjects.control(host), query, _ANSWER))
        except (CallboardError, msgspec.DecodeError) as error:
            self._log.debug("no_answer", host=host, error=str(error))
            return None

    def answer(self, futures: Iterable[str], running: Mapping[str, int]) -> Calls:
        """What another host is told.

        Args:
            futures: it asks for; running: the messages of the calls that this host has, by future.
        """
        told = Calls(self._host.id)
        for future in futures:
            if future in self._asking:
                told.asking[future] = self._asking[future]
            elif future in running:
                told.running[future] = running[future]
        return told
