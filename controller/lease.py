"""Which of several controllers leads: a lease in the registry, with an epoch.

Who leads writes the lease anew all the time, accepted only if nobody else has. The others look at it; when it
has not changed for ``dead_after``, by their own watch, one of them takes it with the next epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.direct import timestamp
from callboard.infra.errors import CallboardError, Fenced
from callboard.infra.messages.registry import Leader

if TYPE_CHECKING:
    from callboard.actors.node import Node

KEY = "controller"
NOBODY = ""
"""In the place of a controller: the last one has left in good order."""
_LEAVE = 1.0
_LOOK = 0.1
_SLACK = 1.0
_STREAM = f"KV_{subjects.REGISTRY_BUCKET}"
_decode = msgspec.msgpack.Decoder(Leader).decode


class Lease:
    """This controller's part in it.

    Args:
        node: of this process, open; name: of this controller.
        on_lead: called with the epoch, when this one begins to lead; on_lost: called when it does no more.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        on_lead: Callable[[int], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._node = node
        self._name = name
        self._on_lead = on_lead
        self._on_lost = on_lost
        self._subject = subjects.registry(KEY)
        self._sequence = -1
        self._changed = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self.epoch = 0
        """Of whoever leads, as last seen."""
        self.leading = False
        self._log = log.get("lease").bind(controller=name)

    def start(self) -> None:
        """Idempotent."""
        if self._task is None:
            self._task = self._node.loop.create_task(self._hold())

    async def stop(self) -> None:
        """Lead no more; another one may begin at once. Idempotent."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        if self.leading:
            self._lose()
            with contextlib.suppress(CallboardError, TimeoutError):  # then they find out by themselves
                async with asyncio.timeout(_LEAVE):
                    await self._write(NOBODY, self.epoch)

    def give_way(self, epoch: int) -> None:
        """A controller of this epoch decides: lead no more, and never again with an epoch that is not later.

        The lease and what is decided are in two buckets. Where that of the lease was lost or made anew, its
        epochs begin at 1 again, and nothing that their controllers decide would be stored.
        """
        self.epoch = max(self.epoch, epoch)
        self._changed = time.monotonic()
        if self.leading:
            self._lose()

    async def _hold(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._node.settings.dead_after):
                    await (self._renew() if self.leading else self._look())
            except (CallboardError, TimeoutError) as error:
                # Who cannot write does not lead, and who cannot read may not call others dead.
                self._changed = time.monotonic()
                self._log.warning("lease_unclear", error=str(error) or "no answer in time")
                if self.leading:
                    self._lose()
            await asyncio.sleep(self._node.settings.pulse_every if self.leading else _LOOK)

    async def _look(self) -> None:
        """As one of those who stand by: take the lease if nobody has it, or nobody renews it."""
        stored = await self._node.reader.last(_STREAM, self._subject)
        now = time.monotonic()
        sequence = stored.sequence if stored is not None else 0
        if sequence != self._sequence:
            self._sequence, self._changed = sequence, now
        leader = _read(stored.body) if stored is not None else None
        if leader is not None:
            self.epoch = max(self.epoch, leader.epoch)
            if leader.controller != NOBODY and now - self._changed < self._node.settings.dead_after:
                return
        try:
            await self._write(self._name, self.epoch + 1)
        except Fenced:
            return  # another one was faster
        self.epoch += 1
        self.leading = True
        self._log.info("leading", epoch=self.epoch)
        self._on_lead(self.epoch)

    async def _renew(self) -> None:
        try:
            await self._write(self._name, self.epoch)
        except Fenced:
            self._log.warning("lease_lost", epoch=self.epoch)
            self._changed = time.monotonic()
            self._lose()

    def _lose(self) -> None:
        self.leading = False
        self._on_lost()

    async def _write(self, name: str, epoch: int) -> None:
        body = msgspec.msgpack.encode(Leader(name, epoch, time.time()))
        self._sequence = await self._node.store.stored(self._subject, body, H.encode([self._fence()]))

    def _fence(self) -> tuple[str, str]:
        return H.EXPECTED_SEQUENCE, str(self._sequence)


async def leader(node: Node) -> str:
    """Id of the controller that leads; empty: there is none, or it has been silent for too long."""
    stored = await node.reader.last(_STREAM, subjects.registry(KEY))
    found = _read(stored.body) if stored is not None else None
    if stored is None or found is None:
        return NOBODY
    now = timestamp(str((await node.topology.api(f"STREAM.INFO.{_STREAM}")).get("ts", "")))
    return found.controller if stored.at > now - node.settings.dead_after - _SLACK else NOBODY


def _read(body: bytes) -> Leader | None:
    """Who leads; None if nobody does, or what is there is no lease."""
    try:
        return _decode(body) if body else None
    except (msgspec.DecodeError, RecursionError):
        return None
