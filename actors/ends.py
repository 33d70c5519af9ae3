"""The ends of runs, as a client hears of them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import CallboardError, ResultTimeout
from callboard.state.journal import decode_done

if TYPE_CHECKING:
    from callboard.actors.node import Node
    from callboard.infra.messages.run import Done

_ASK_EVERY = 5.0
_REMEMBERED = 10_000
_JSON = b"application/json"


class _End:
    """The end of a run that this client has submitted or waits for."""

    __slots__ = ("done", "sid", "waiters")

    def __init__(self) -> None:
        self.sid = 0
        self.done: Done | None = None
        self.waiters: list[asyncio.Future[Done]] = []


class Ends:
    """Hears how runs end, from their journals, the moment it is stored.

    Args:
        node: of this process.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ends: dict[str, _End] = {}
        self._reconnected = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Once the node is open."""
        self._node.connection.on_reconnect(self._reconnected.set)
        self._asking = asyncio.get_running_loop().create_task(self._ask())

    def stop(self) -> None:
        """Idempotent."""
        if self._asking is not None:
            self._asking.cancel()

    def expect(self, run: str) -> None:
        """A run is about to be submitted here, and nobody else can have made it: hear of its end."""
        self._expect(run)
        while len(self._ends) > _REMEMBERED and (unawaited := self._oldest_unawaited()):
            self._forget(unawaited)

    async def wait(self, run: str, timeout: float | None) -> Done:
        """Wait for the end of a run.

        Raises:
            ResultTimeout: it has not ended in time.
        """
        expected = run in self._ends
        end = self._expect(run)
        if not expected and end.done is None:
            known = await self._node.journal.done(run)
            if known is not None:
                self._ended(run, known)
        if end.done is not None:
            self._ends.pop(run, None)
            return end.done
        waiter: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        end.waiters.append(waiter)
        try:
            if timeout is None:
                return await waiter
            async with asyncio.timeout(timeout):
                return await waiter
        except TimeoutError as error:
            raise ResultTimeout(
                f"run {run} has not ended after {timeout:g} s: it goes on; see 'callboard show {run}'",
                run=run,
                timeout=timeout,
            ) from error
        finally:
            end.waiters.remove(waiter)
            if not end.waiters and self._ends.get(run) is end:
                self._forget(run)

    def _expect(self, run: str) -> _End:
        end = self._ends.get(run)
        if end is None:
            end = self._ends[run] = _End()
            end.sid = self._node.connection.subscribe(subjects.journal(run, "done"), self._on_end)
        return end

    def _on_end(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        try:
            done = decode_done(data, {H.CONTENT_TYPE: H.JSON} if head and _JSON in head else {})
        except (ValueError, RecursionError):
            return  # anybody can publish there
        self._ended(done.run, done)

    def _ended(self, run: str, done: Done) -> None:
        end = self._ends.get(run)
        if end is None:
            return
        if end.sid:
            self._node.connection.unsubscribe(end.sid)
        end.done = done
        for waiter in end.waiters:
            if not waiter.done():
                waiter.set_result(done)
        if end.waiters:
            del self._ends[run]

    def _oldest_unawaited(self) -> str | None:
        return next((run for run, end in self._ends.items() if not end.waiters), None)

    def _forget(self, run: str) -> None:
        end = self._ends.pop(run, None)
        if end is not None and end.done is None and end.sid:
            self._node.connection.unsubscribe(end.sid)

    async def _ask(self) -> None:
        """Such news can be lost with a connection, so the journal is asked too, now and then."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASK_EVERY):
                    await self._reconnected.wait()
            self._reconnected.clear()
            for run in [run for run, end in self._ends.items() if end.waiters and end.done is None]:
                try:
                    done = await self._node.journal.done(run)
                except CallboardError:  # asked again the next time
                    continue
                if done is not None:
                    self._ended(run, done)
