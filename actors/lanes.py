"""Lanes of hosts that pull from them no more: their calls move to the shared lane.

A maker, or a host that passes a call on, may take a host for alive that has just left or died: what it
stores then comes after the lane was emptied. And a host that drains has calls in its lane which its own
running handlers wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from callboard.actors.inbound import band, ended_as, kept
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.errors import CallboardError

if TYPE_CHECKING:
    from callboard.actors.host import Host
    from callboard.actors.inbound import Call
    from callboard.infra.direct import Stored

MOVED = "moved:"
"""What message ids begin with of calls that were moved; the place of the message before follows."""
_DRAINING = 0.25
"""Seconds between two looks of a host at its own lane while it drains."""


class Lanes:
    """Looks after the lanes of hosts.

    Args:
        host: who looks.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._node = host.node
        self._suspects: set[str] = set()
        self._moving = asyncio.Lock()
        self._log = log.get("lanes")

    async def move(self, host: str, held: Collection[int] = (), to: str = subjects.ANY, read: int = 0) -> int:
        """Move the calls that were addressed to a host to the shared lane; returns how many.

        A crash in between leaves a call twice, under one id; hosts run it once. Of two that move the same
        message the server takes one.

        Args:
            held: sequences of those that are to stay.
            to: the host that gets those instead of actors that it serves, if it is another one.
            read: sequence of the last one that the host was given, if it is dead: one of them may have ended
                it.
        """
        async with self._moving:  # what two found there at once each would move
            return await self._move(host, frozenset(held), to, read)  # as it was before the lane is read

    async def _move(self, host: str, held: frozenset[int], to: str, read: int) -> int:
        moved = 0
        for stored in await self._node.reader.read(subjects.CALLS, f"cb.call.*.{host}.*"):
            if stored.sequence in held:
                continue
            if self._is_done(stored):
                await self._node.topology.delete_message(subjects.CALLS, stored.sequence)
                continue
            actor = stored.subject.split(".")[2]
            own = kept(stored.headers)
            own.pop(H.EXECUTOR, None)
            if stored.sequence <= read:
                own[H.DELIVERIES] = str(H.epoch(own, H.DELIVERIES) + 1)
            head = H.encode([*own.items(), (H.MESSAGE_ID, f"{MOVED}{stored.sequence}")])
            named = to not in {subjects.ANY, host} and self._host.watch.serves(to, actor)
            lane = to if named else subjects.ANY
            await self._node.store.stored(subjects.call(actor, lane, band(stored.subject)), stored.body, head)
            await self._node.topology.delete_message(subjects.CALLS, stored.sequence)
            moved += 1
        return moved

    def _is_done(self, stored: Stored) -> bool:
        """Whether this host is done with a call: its outcome or next attempt is stored, its ack is due."""
        known = ended_as(stored.headers.get(H.FUTURE, ""), stored.headers)
        return (known, H.epoch(stored.headers, H.ATTEMPT) or 1) in self._host.recent

    async def pass_on(self, call: Call) -> None:
        """Store a call that was addressed to this host in the shared lane, then be done with the message."""
        own = kept(call.headers)
        own.pop(H.EXECUTOR, None)
        subject = subjects.call(call.method.actor, subjects.ANY, call.band)
        try:
            await self._node.store.stored(subject, call.body, H.encode(own.items()))
        except CallboardError as error:
            self._log.warning("call_not_passed_on", future=call.id, error=str(error))
            call.give_back()
        else:
            self._host.telemetry.moved(call, subjects.ANY, "passed_on")
            call.settle()

    async def look(self) -> None:
        """Empty lanes whose host is not among the living, now and when this was called before."""
        if self._moving.locked():  # that may take longer than the time between two looks
            return
        answer = await self._node.topology.api(
            f"STREAM.INFO.{subjects.CALLS}", {"subjects_filter": "cb.call.>"}
        )
        lanes = {_lane(subject) for subject in answer.get("state", {}).get("subjects") or {}}
        gone = lanes - {subjects.ANY} - set(self._host.watch.alive)
        for lane in gone & self._suspects:
            moved = await self.move(lane)
            self._log.info("lane_of_nobody_emptied", host=lane, calls=moved)
        self._suspects = gone

    async def while_draining(self) -> None:
        """Let others have what still comes into the own lane, until it is cancelled."""
        while True:
            lane = self._host.lane
            try:
                await self.move(self._host.id, () if lane is None else lane.held)
            except CallboardError as error:  # with the server gone there is nothing to move either
                self._log.warning("lane_not_emptied", error=str(error))
            await asyncio.sleep(_DRAINING)


def _lane(subject: str) -> str:
    """The lane of a call; the shared one for what lies in none, where anybody may have published it."""
    tokens = subject.split(".")
    return tokens[3] if len(tokens) == 5 and subjects.is_token(tokens[3]) else subjects.ANY
