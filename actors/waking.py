"""Waking runs that were put aside: timers that have fired, and signals, on whatever host is there."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import msgspec

from callboard.actors.aside import wake
from callboard.actors.feed import Steady
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.errors import CallboardError, StoreRefused
from callboard.infra.messages.run import Result
from callboard.infra.pull import Delivered, Pull
from callboard.infra.topology import call_consumer, signal_consumer

if TYPE_CHECKING:
    from callboard.actors.host import Host
    from callboard.actors.node import Node

_ROOM = 256
_AGAIN = 2.0
_HOPELESS = (ValueError, RecursionError, subjects.NameInvalid, StoreRefused)
"""Rubbish, or what can never be stored."""
_decode = msgspec.msgpack.Decoder(Result).decode


class Waker:
    """Takes what runs wait for to their journals, and wakes those that are aside.

    Args:
        host: where it runs.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.pulls: list[Pull] = []
        self._feeds: list[Steady] = []
        self._log = log.get("waking")

    async def start(self) -> None:
        """See to the consumers and begin to pull."""
        settings = self._host.node.settings
        timers, signals = (
            call_consumer(subjects.WAKER, subjects.MIDDLE_BAND, settings),
            signal_consumer(settings),
        )
        for stream, (name, config) in ((subjects.CALLS, timers), (subjects.RUNS, signals)):
            pull = Pull(self._host.node.connection, stream, name, self._accept, lambda _: self._feed())
            await self._host.renew(pull, config)
            self.pulls.append(pull)
            self._feeds.append(Steady(pull, functools.partial(_room, pull)))
            pull.start()
        self._feed()

    def pause(self) -> None:
        """Pull no more. Idempotent."""
        for pull in self.pulls:
            pull.stop()

    def _feed(self) -> None:
        for feed in self._feeds:
            feed.feed()

    def _accept(self, delivered: Delivered) -> None:
        self._host.caller.spawn(self._settle(delivered))

    async def _settle(self, delivered: Delivered) -> None:
        """Do what a message says; it is acked when that is stored."""
        try:
            if delivered.pull.stream == subjects.RUNS:
                await wake(self._host.node, delivered.subject.split(".")[2])
            else:
                await self._fired(delivered)
            delivered.ack()
        except _HOPELESS as error:
            if delivered.pull.stream == subjects.CALLS:
                text = f"no timer: {error}"
                self._host.dead.put(subjects.WAKER, delivered, "undecodable", text, settled=self._feed)
            else:
                delivered.ack()
        except CallboardError as error:
            self._log.warning("not_woken", subject=delivered.subject, error=str(error))
            self._host.node.loop.call_later(_AGAIN, self._give_back, delivered)
        finally:
            self._feed()

    def _give_back(self, delivered: Delivered) -> None:
        delivered.nak()
        self._feed()

    async def _fired(self, delivered: Delivered) -> None:
        """A time has come: that is the outcome of a wait, or the deadline of a run that is aside."""
        node = self._host.node
        run = H.decode(delivered.raw_headers).get(H.RUN, "")
        subjects.token("run id", run)
        if delivered.body:
            result = _decode(delivered.body)
            if result.future.partition(":")[0] != run:
                raise ValueError(f"a wait of {result.future} in run {run}")
            if await node.journal.done(run) is not None:
                return
            await _stored(node, run, result)
        await wake(node, run)


async def _stored(node: Node, run: str, result: Result) -> None:
    """Store an outcome, and wait until it is.

    Raises:
        StoreRefused: it never will be.
    """
    waiter: asyncio.Future[int | StoreRefused] = node.loop.create_future()
    node.journal.put_result(run, result, waiter.set_result)
    outcome = await waiter
    if isinstance(outcome, StoreRefused):
        raise outcome


def _room(pull: Pull) -> int:
    return _ROOM - len(pull.held)
