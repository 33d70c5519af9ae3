"""What a host lets idle ones have of the calls that wait in it.

It is the heart's thread that gives them away, over its own connection, so that calls get away also from
behind a handler that blocks the event loop. A call that waits stands in ``Instance.unbegun``, where either
the loop takes it out or the heart. What the loop has not even read yet is found in the host's lane, since
nobody else pulls from that.

A call is stored in the other host's lane before its message here is acked.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from callboard.actors import registry
from callboard.actors.inbound import band, kept
from callboard.actors.mailbox import rank
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.direct import DirectReader, Stored
from callboard.infra.errors import CallboardError
from callboard.infra.messages.control import Steal, Stolen
from callboard.infra.store import Store
from callboard.infra.topology import Topology

if TYPE_CHECKING:
    from callboard.actors.host import Host
    from callboard.actors.inbound import Call
    from callboard.actors.instance import Instance
    from callboard.infra.connection import Connection

BLOCKED = 0.2
"""Seconds without a turn of the event loop after which nothing counts as about to begin."""
MOST = 256
"""Calls that are given away at once."""
_REMEMBERED = 10_000
_LEAVE = 1.0
_decode = msgspec.msgpack.Decoder(Steal).decode


class Giving:
    """Calls of one host that wait too long.

    Args:
        host: whose calls.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._unread: dict[str, int] = {}  # by actor: messages in the lane that the loop has not read
        self.told: set[str] = set()
        """Actors of which other hosts know that calls wait here."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = log.get("giving")

    # -- what there is -----------------------------------------------------------------------------

    def overdue(self, instance: Instance) -> list[Call]:
        """Calls that have waited too long and may run elsewhere."""
        if instance.stuck is not None:
            return instance.stuck.overdue()
        host, after = self._host, self._host.node.settings.steal_after
        if not after or not len(instance.unbegun) or host.draining or instance.standby:
            return []
        if instance.slots.free > 0 and not self.is_blocked():
            return []  # they wait for a batch to fill
        return instance.unbegun.overdue(after)

    def count(self, instance: Instance) -> int:
        """How many there are, what the loop has not read included."""
        return len(self.overdue(instance)) + self._unread.get(instance.name, 0)

    async def settled(self) -> None:
        """Wait until nothing is on its way to others; a host that leaves begins nothing new."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=_LEAVE)

    def is_blocked(self) -> bool:
        """Whether the event loop of the host has not turned for a while."""
        return time.monotonic() - self._host.beat > BLOCKED

    # -- over the heart's connection ---------------------------------------------------------------

    async def serve(self, connection: Connection) -> None:
        """Give calls to whoever asks; until cancelled."""
        store, reader = Store(connection), DirectReader(connection)
        topology = Topology(connection, self._host.node.settings)
        store.start()

        def on_steal(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
            try:
                asked = _decode(data)
            except (msgspec.DecodeError, RecursionError) as error:
                self._log.warning("steal_undecodable", error=str(error))
                return
            if subjects.is_token(asked.by) and subjects.is_token(asked.actor):
                giving = _Round(self._host, self, asked, connection, store, reader, topology)
                task = asyncio.get_running_loop().create_task(giving.answer(reply.decode("utf-8", "replace")))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        connection.subscribe(subjects.steal(self._host.id), on_steal)
        try:
            while True:
                await self._look_at_lane(reader)
                await asyncio.sleep(BLOCKED)
        finally:
            if self._tasks:
                _, late = await asyncio.wait(self._tasks, timeout=_LEAVE)
                for task in late:  # what is claimed and not stored comes back with the ack wait
                    task.cancel()
            await store.stop(_LEAVE)

    async def _look_at_lane(self, reader: DirectReader) -> None:
        """While the loop is blocked: what it has not read of the host's lane."""
        self._unread = {}
        if not self.is_blocked() or self._host.draining or not self._host.node.settings.steal_after:
            return
        found: dict[str, int] = {}
        for instance in self._host.stealable():
            unread = await self.unread(reader, instance)
            if unread:
                found[instance.name] = len(unread)
        self._unread = found

    async def unread(self, reader: DirectReader, instance: Instance) -> list[Stored]:
        """Calls of an instance in the host's lane that the blocked loop has not read."""
        lane = self._host.lane
        if lane is None or instance.serial or not self.is_blocked():
            return []
        try:
            stored = await reader.read(
                subjects.CALLS,
                subjects.call(instance.name, self._host.id).rpartition(".")[0] + ".*",
                0,
                2 * MOST,
            )
        except CallboardError as error:
            self._log.warning("lane_unread", error=str(error))
            return []
        limit = time.time() - self._host.node.settings.steal_after
        return [one for one in stored if one.sequence not in lane.held and one.at < limit]

    def take_unread(self, sequence: int, beat: float) -> bool:
        """Take a message that the loop has not read; whether nobody was faster, another round or the loop.

        Args:
            beat: when the loop had turned last, before the message was found.
        """
        lane, taken = self._host.lane, self._host.given
        assert lane is not None
        if sequence in taken:
            return False
        taken[sequence] = None
        if (beat != self._host.beat or sequence in lane.held) and taken.pop(sequence, 0) is None:
            return False  # it may have been read meanwhile, and the loop has not found it taken
        while len(taken) > _REMEMBERED:
            del taken[next(iter(taken))]
        return True


class _Round:
    """One answer to one host that asks for calls."""

    def __init__(
        self,
        host: Host,
        giving: Giving,
        asked: Steal,
        connection: Connection,
        store: Store,
        reader: DirectReader,
        topology: Topology,
    ) -> None:
        self._host = host
        self._giving = giving
        self._asked = asked
        self._connection = connection
        self._store = store
        self._reader = reader
        self._topology = topology
        self._log = log.get("giving")

    async def answer(self, reply: str) -> None:
        """Give what may be given, then say how much that was."""
        asked, given, left = self._asked, 0, 0
        if not await self._is_there():
            return
        for instance in self._host.stealable():
            if instance.name == asked.actor and not self._host.draining:
                give = self._give if instance.stuck is None else self._give_sessions
                given, left = await give(instance, max(0, min(asked.most, MOST)))
        if not left:
            self._giving.told.discard(asked.actor)
        if given:
            self._log.info("calls_given", actor=asked.actor, to=asked.by, calls=given, left=left)
        if reply:
            told = Stolen(self._host.id, calls=given, left=left)
            self._connection.publish(reply, msgspec.msgpack.encode(told))

    async def _is_there(self) -> bool:
        """Whether the other host serves the actor; a blocked loop knows nobody that came after the block."""
        asked, watch = self._asked, self._host.watch
        if watch.serves(asked.by, asked.actor) or not self._giving.is_blocked():
            return watch.serves(asked.by, asked.actor)
        subject = subjects.registry(f"host.{asked.by}")
        try:
            stored = await self._reader.last(subjects.REGISTRY, subject)
        except CallboardError as error:
            self._log.warning("host_unread", host=asked.by, error=str(error))
            return False
        pulse = registry.pulse(asked.by, stored.body) if stored else None
        return pulse is not None and pulse.serves(asked.actor)

    async def _give(self, instance: Instance, most: int) -> tuple[int, int]:
        waiting = sorted(self._giving.overdue(instance), key=rank)
        beat = self._host.beat
        unread = await self._giving.unread(self._reader, instance)
        if self._host.draining:
            return 0, 0
        calls = [call for call in waiting[:most] if instance.unbegun.take(call)]
        if calls:
            self._host.node.loop.call_soon_threadsafe(instance.gone, calls, self._asked.by)
        messages = [m for m in unread[: most - len(calls)] if self._giving.take_unread(m.sequence, beat)]
        moved = await asyncio.gather(*map(self._move, calls), *map(self._move_unread, messages))
        return sum(moved), len(waiting) + len(unread) - len(calls) - len(messages)

    async def _give_sessions(self, instance: Instance, most: int) -> tuple[int, int]:
        """Sessions leave by the event loop, which knows what runs of them; if that is blocked, none does."""
        giving = self._host.migrations.give(instance, self._asked.by, most)
        asked = asyncio.run_coroutine_threadsafe(giving, self._host.node.loop)
        try:
            async with asyncio.timeout(BLOCKED):
                return await asyncio.wrap_future(asked)
        except TimeoutError:
            return 0, 0

    async def _move(self, call: Call) -> bool:
        reply = call.delivered.reply
        if await self._stored(call.band, kept(call.headers), call.body):
            self._connection.publish(reply, b"+ACK")
            return True
        self._connection.publish(reply, b"-NAK")
        return False

    async def _move_unread(self, message: Stored) -> bool:
        if await self._stored(band(message.subject), kept(message.headers), message.body):
            await self._topology.delete_message(subjects.CALLS, message.sequence)
            return True
        self._host.given.pop(message.sequence, None)  # or, if the loop has met it, it waits for the ack wait
        return False

    async def _stored(self, urgency: int, headers: dict[str, str], body: bytes) -> bool:
        headers |= {H.EXECUTOR: self._asked.by, H.STOLEN: self._host.id}
        # Without a message id: it may have run by the time it is there, so it is to be looked for.
        subject = subjects.call(self._asked.actor, self._asked.by, urgency)
        try:
            await self._store.stored(subject, body, H.encode(headers.items()))
        except CallboardError as error:
            self._log.warning("call_not_given", error=str(error))
            return False
        return True
