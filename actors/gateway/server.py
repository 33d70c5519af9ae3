"""The gateway itself: a FastStream broker on the connection of a client of the board."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import nats.errors
from faststream.nats.subscriber.usecases import ConcurrentCoreSubscriber

from callboard.actors.client import Client
from callboard.actors.gateway import document
from callboard.actors.gateway.answering import Answering, Tally, read
from callboard.actors.gateway.broker import SharedBroker
from callboard.actors.gateway.discovery import Discovery
from callboard.actors.gateway.messages import GROUP, subject
from callboard.actors.gateway.verbs import Verbs
from callboard.actors.node import Node
from callboard.infra import log, subjects
from callboard.infra.errors import ConnectFailed, ConnectionLost
from callboard.infra.settings import Settings

_AT_ONCE = 256
"""Requests in hand beside those that wait for a run: enough to refuse what is too much."""
_LEAVES_WITHIN = 10.0
"""Seconds to take what the server had sent before it heard of the leaving, on a busy machine, too."""


class Gateway:
    """Serves ``cb.api.<verb>.<name>``; start as many as wanted, they share the requests.

    Use as ``async with Gateway(settings)``, or with :meth:`start` and :meth:`stop`, or :meth:`serve`.

    Args:
        settings: with the server's address; a string is taken for that address.
        on_lost: awaited if the connection is closed for good; the process should end then.
        wait: seconds to wait for the end of a run where a request has no deadline.
        most_waiting: requests that may wait at once; more are refused, with a time to come again.
    """

    def __init__(
        self,
        settings: Settings | str,
        on_lost: Callable[[ConnectionLost], Awaitable[None]] | None = None,
        *,
        wait: float = 30.0,
        most_waiting: int = 4096,
    ) -> None:
        if isinstance(settings, str):
            settings = Settings.load(nats_url=settings)
        self.id = f"gateway-{subjects.new_id()[-8:].lower()}"
        self._settings = settings
        node = Node(settings, self.id, self._gone)
        self._client = Client(settings, node)
        self._connection = node.connection
        self._verbs = Verbs(self._client, node, wait, most_waiting)
        self._taken = asyncio.Event()
        self._tallies = {verb: Tally(self._taken.set) for verb in document.VERBS}
        self._broker = SharedBroker(
            self._connection.client,
            settings.nats_url.split(","),
            apply_types=False,
            decoder=read,
            middlewares=[functools.partial(Answering, self._tallies, lambda: self._connection.max_payload)],
            description="The board: a NATS server with JetStream",
        )
        self._subscribers = [self._serve(verb, most_waiting + _AT_ONCE) for verb in document.VERBS]
        self._discovery: Discovery | None = None
        self._on_lost = on_lost
        self._lost: ConnectionLost | None = None
        self._ended = asyncio.Event()
        self._state = "new"
        self._log = log.get("gateway").bind(gateway=self.id)

    def _serve(self, verb: str, at_once: int) -> ConcurrentCoreSubscriber:
        one = document.VERBS[verb]
        subscriber = self._broker.subscriber(
            subject(verb, one.name), queue=GROUP, max_workers=at_once, title=verb, description=one.text
        )
        subscriber(one.method.__get__(self._verbs))
        return subscriber

    def asyncapi(self) -> dict[str, Any]:
        """An AsyncAPI 3.0 document of the subjects, with the schemas of what goes either way."""
        return document.asyncapi(self._broker)

    # -- lifecycle ---------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def serve(self, stop: asyncio.Event) -> None:
        """Start, answer until told to stop, and drain.

        Raises:
            ConnectionLost: the connection is closed for good; what :meth:`start` raises.
        """
        async with self:
            told = [asyncio.create_task(event.wait()) for event in (stop, self._ended)]
            try:
                await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in told:
                    task.cancel()
        if self._lost is not None:
            raise self._lost

    async def _gone(self, error: ConnectionLost) -> None:
        self._lost = error
        self._ended.set()
        if self._on_lost is not None:
            await self._on_lost(error)

    async def start(self) -> None:
        """Connect and begin to answer. Idempotent.

        Raises:
            ConnectFailed, ServerUnsuitable, StoreRefused: as their texts say.
        """
        if self._state != "new":
            return
        self._state = "running"
        try:
            await self._client.__aenter__()
            await self._broker.start()
            texts = {verb: one.text for verb, one in document.VERBS.items()}
            self._discovery = Discovery(self._connection.client, self.id, texts, self._tallies)
            await self._discovery.start()
        except BaseException as error:
            self._state = "stopped"
            with contextlib.suppress(ExceptionGroup, nats.errors.Error):
                await self._broker.stop()
            await self._client.close()
            if isinstance(error, nats.errors.Error):
                text = f"the connection was lost while the gateway started ({error}): start it again"
                raise ConnectFailed(text, url=self._settings.nats_url) from error
            raise
        self._log.info("gateway_ready", verbs=list(document.VERBS))

    async def stop(self, grace: float | None = None) -> None:
        """Drain in a fixed order: leave discovery, take no more, answer what was taken, close.

        Args:
            grace: seconds that waiting requests get; then they are told that their runs go on.
        """
        if self._state != "running":
            return
        self._state = "stopped"
        grace = self._settings.grace if grace is None else grace
        self._log.info("draining", grace_s=grace, waiting=len(self._verbs.waits))
        reachable = self._connection.client.is_connected
        self._verbs.waits.cut(grace if reachable else 0.0)
        for step in (self._leave, functools.partial(self._broker.drain, grace + _LEAVES_WITHIN)):
            try:
                await step()
            except (nats.errors.Error, TimeoutError, ExceptionGroup) as error:
                self._log.warning("drained_in_part", error=str(error) or type(error).__name__)
        await self._client.close()
        self._log.info("stopped")

    async def _leave(self) -> None:
        """Tell the server that nothing more is wanted, and take what it has sent before it heard of that."""
        if not self._connection.client.is_connected:
            for subscriber in self._subscribers:
                subscriber.subscription = None
            return
        async with asyncio.timeout(_LEAVES_WITHIN):
            if self._discovery is not None:
                await self._discovery.stop()
            expected = sum(await asyncio.gather(*map(_end, self._subscribers)))
            # FastStream drops what it has not begun when it is told to stop.
            while sum(tally.taken for tally in self._tallies.values()) < expected:
                self._taken.clear()
                await self._taken.wait()


async def _end(subscriber: ConcurrentCoreSubscriber) -> int:
    """End a subscription; returns how many messages it has had."""
    subscription = subscriber.subscription
    if subscription is None:
        return 0
    try:
        await subscription.drain()  # type: ignore[no-untyped-call]
    finally:
        subscriber.subscription = None  # else FastStream would end it again, which is an error
    return subscription.delivered
