"""The controller: follows what hosts tell, and leads, or stands by for the one that leads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

import msgspec

from callboard.actors.node import Node
from callboard.controller.deciding import Deciders
from callboard.controller.follow import Follower
from callboard.controller.lease import Lease
from callboard.controller.provisioning.fleet import Fleet
from callboard.controller.provisioning.port import Provisioner
from callboard.controller.view import View
from callboard.infra import log, subjects
from callboard.infra.errors import CallboardError, ConnectionLost
from callboard.infra.messages.control import Drain, Kill
from callboard.infra.messages.runtimes import Curve, Runtime
from callboard.infra.settings import Settings
from callboard.state.journal import read_entries
from callboard.state.runtimes import Runtimes

STORE_EVERY = 2.0
"""Seconds between two writes of what has changed in the runtime table."""
_STREAM = f"KV_{subjects.RUNTIMES_BUCKET}"
_DRAIN = msgspec.msgpack.encode(Drain())
_decode_kill = msgspec.msgpack.Decoder(Kill).decode
_decode = msgspec.msgpack.Decoder(Runtime).decode
_decode_curve = msgspec.msgpack.Decoder(Curve).decode


class Controller:
    """A controller. Any number may run: one leads, the others see the same and take over when it is silent.

    Nothing that serves a call waits for it.

    Args:
        settings: with the server's address.
        on_lost: awaited if the connection is closed for good; the process should end then.
        policies: to follow as long as nobody has chosen others for all controllers.
        provisioner: starts and ends hosts while this one leads; None: nobody does.

    Attributes:
        view: what is open now, as columns; how long calls take, while this one leads.
        deciders: the policies, once it has started; fleet: the hosts of its provisioner, if it has one.
    """

    def __init__(
        self,
        settings: Settings,
        on_lost: Callable[[ConnectionLost], Awaitable[None]] | None = None,
        policies: Sequence[str] = (),
        provisioner: Provisioner | None = None,
    ) -> None:
        self.id = f"c-{subjects.new_id()[-12:].lower()}"
        self.node = Node(settings, self.id, on_lost)
        self.view = View()
        self._policies = policies
        self.fleet = None if provisioner is None else Fleet(provisioner, self.view, self._drain)
        self._follower: Follower | None = None
        self.deciders: Deciders | None = None
        self._lease: Lease | None = None
        self._led = asyncio.Event()
        self._storing: asyncio.Task[None] | None = None
        self._log = log.get("controller").bind(controller=self.id)

    # -- lifecycle -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect, build the view, and lead if nobody does. Idempotent.

        Raises:
            ConnectFailed, ServerUnsuitable, StoreRefused: as their texts say.
            ProvisionerUnusable: hosts cannot be started and ended as asked for.
        """
        if self._follower is not None:
            return
        await self.node.open()
        try:
            self._follower = Follower(self.node, self.view)
            await self._follower.start()
            if self.fleet is not None:
                await self.fleet.start()
                self.node.connection.subscribe(subjects.control(subjects.MINDERS), self._on_kill)
            self.deciders = Deciders(
                self.node,
                self.id,
                self.view,
                self._policies,
                lambda: self.complete,
                fleet=self.fleet,
                outbid=self._give_way,
            )
            await self.deciders.start()
        except BaseException:
            await self.stop()
            raise
        self._lease = Lease(self.node, self.id, self._lead, self._lead_no_more)
        self._lease.start()
        self._log.info("controller_ready", hosts=len(self.view.hosts))

    async def stop(self) -> None:
        """Lead no more, and leave. Idempotent."""
        if self._lease is not None:
            await self._lease.stop()
        if self.deciders is not None:
            self.deciders.stop()
        if self._follower is not None:
            self._follower.stop()
        if self.fleet is not None:
            await self.fleet.stop()
        await self.node.close()

    @property
    def leading(self) -> bool:
        """Whether this one leads."""
        return self._lease is not None and self._lease.leading

    @property
    def epoch(self) -> int:
        """Of whoever leads, as last seen."""
        return 0 if self._lease is None else self._lease.epoch

    @property
    def complete(self) -> bool:
        """Whether every host that reports has told its whole state."""
        return self._follower is not None and self._follower.complete

    async def led(self) -> None:
        """Wait until this one leads."""
        await self._led.wait()

    def _drain(self, host: str) -> None:
        """End a host whose process another controller minds."""
        self.node.connection.publish(subjects.control(host), _DRAIN)
        self.node.connection.publish(subjects.control(subjects.MINDERS), msgspec.msgpack.encode(Kill(host)))

    def _on_kill(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        try:
            host = _decode_kill(data).host
        except (msgspec.DecodeError, RecursionError):  # anybody can publish there
            return
        if self.fleet is not None:
            self.fleet.end_if_mine(host)

    @property
    def runtimes(self) -> Runtimes:
        """How long calls take, while this one leads."""
        return self.view.runtimes

    # -- leading -------------------------------------------------------------------------------------

    def _lead(self, epoch: int) -> None:
        self._storing = self.node.loop.create_task(self._keep_runtimes())
        if self.fleet is not None:
            self.fleet.lead()
        if self.deciders is not None:
            self.deciders.lead(epoch)
        self._led.set()

    def _lead_no_more(self) -> None:
        self._led.clear()
        if self.deciders is not None:
            self.deciders.lead_no_more()
        if self.fleet is not None:
            self.fleet.lead_no_more()
        self.view.on_ended = None
        if self._storing is not None:
            self._storing.cancel()
            self._storing = None

    def _give_way(self, epoch: int) -> None:
        if self._lease is not None:
            self._lease.give_way(epoch)

    async def _keep_runtimes(self) -> None:
        """Go on from the table as it was stored, and store what changes."""
        runtimes = Runtimes()
        while True:
            with contextlib.suppress(CallboardError):  # asked again
                stored = await self.node.reader.read(_STREAM, f"$KV.{subjects.RUNTIMES_BUCKET}.>")
                ends = f".{subjects.CURVE}"
                curves = [one for one in stored if one.subject.endswith(ends)]
                rows = [one for one in stored if not one.subject.endswith(ends)]
                runtimes.load(
                    (row for _, row in read_entries(_decode, rows)),
                    (curve for _, curve in read_entries(_decode_curve, curves)),
                )
                break
            await asyncio.sleep(STORE_EVERY)
        self.view.runtimes = runtimes
        self.view.on_ended = self.view.learn
        while True:
            await asyncio.sleep(STORE_EVERY)
            for row in runtimes.changed():
                actor, _, method = row.call.rpartition(".")
                if subjects.is_token(actor) and subjects.is_token(method):
                    subject = subjects.runtime(actor, method, str(row.size))
                    self.node.store.put(subject, msgspec.msgpack.encode(row))
            for curve in runtimes.curves():
                actor, _, method = curve.call.rpartition(".")
                if subjects.is_token(actor) and subjects.is_token(method):
                    subject = subjects.runtime_curve(actor, method)
                    self.node.store.put(subject, msgspec.msgpack.encode(curve))
                await asyncio.sleep(0)  # reports come meanwhile
