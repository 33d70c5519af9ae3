"""The heartbeat of a host: a thread with a connection of its own.

Handlers share the host's event loop, and one that blocks it must neither lose its message nor make the
host look dead. So this thread tells that the host lives, what it holds, and keeps its messages from
being delivered again; and it names the handler that blocks the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import msgspec

from callboard.actors.giving import Giving
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.connection import Connection
from callboard.infra.errors import CallboardError
from callboard.infra.messages.registry import Pulse
from callboard.infra.pull import Pull

if TYPE_CHECKING:
    from callboard.actors.host import Host

LATE = 0.25
"""Seconds without a turn of the event loop after which a handler is reported."""
_TOUCH = 3
_SETTLED = 2.0
_LOOK = 0.1
"""Seconds between two looks for calls that wait, where the event loop does not ask for one."""


class Heart:
    """Beats for a host until stopped.

    Args:
        host: whose heart it is.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._thread: threading.Thread | None = None
        self._wake = asyncio.Event()
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main = threading.get_ident()
        self._started = time.time()
        self._reported = 0.0
        self._giving = Giving(host)
        self._log = log.get("pulse")

    async def announce(self) -> None:
        """The first beat, over the host's own connection: it is known before it takes a call."""
        subject = subjects.registry(f"host.{self._host.id}")
        await self._host.node.store.stored(subject, msgspec.msgpack.encode(self._pulse({})), _ROLLUP)

    def start(self) -> None:
        """Idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="callboard-pulse", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Beat no more; waits for the last beat. Idempotent."""
        self._ended = True  # seen by a thread that is only about to begin
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)
        if self._thread is not None:
            self._thread.join(timeout=5)
            self._thread = None

    def look(self) -> None:
        """Look now whether calls wait too long; from the event loop of the host."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    async def settled(self) -> None:
        """Wait until no call is on its way from here to another host; in the event loop of the host."""
        if self._loop is not None and self._loop.is_running():
            waits = asyncio.run_coroutine_threadsafe(self._giving.settled(), self._loop)
            await asyncio.wait([asyncio.wrap_future(waits)], timeout=_SETTLED)

    def _run(self) -> None:
        asyncio.run(self._beat())

    async def _beat(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not self._ended:
            try:
                await self._beat_over(Connection(self._host.node.settings, f"{self._host.id}-pulse"))
            except CallboardError as error:
                self._log.warning("heart_unconnected", error=str(error), action="trying again")
            except Exception:  # noqa: BLE001 - without a heart a host that works is taken for dead
                self._log.exception("heart_failed", action="beating over a new connection")
            await self._rest(self._host.node.settings.pulse_every)

    async def _beat_over(self, connection: Connection) -> None:
        """Beat until stopped, or until this connection is closed for good."""
        giving: asyncio.Task[None] | None = None
        try:
            await connection.open()
            giving = asyncio.get_running_loop().create_task(self._giving.serve(connection))
            due = 0.0
            while not (self._ended or connection.client.is_closed or giving.done()):
                if self._has_more_overdue() or time.monotonic() >= due:
                    due = time.monotonic() + self._host.node.settings.pulse_every
                    self._beat_once(connection)
                    self._look_at_loop()
                await self._rest(min(_LOOK, max(0.0, due - time.monotonic())))
        finally:
            if giving is not None:
                giving.cancel()
                await asyncio.wait([giving])
            await connection.close()
        if not giving.cancelled():
            giving.result()  # what it has failed with

    def _has_more_overdue(self) -> bool:
        """Whether calls of an actor wait too long of which none did: then idle hosts hear of it at once."""
        overdue = {one.name for one in self._host.stealable() if self._giving.count(one)}
        fresh = overdue - self._giving.told
        self._giving.told = overdue
        return bool(fresh)

    async def _rest(self, seconds: float) -> None:
        """Until stopped, or told to look; that long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _beat_once(self, connection: Connection) -> None:
        if not connection.connected.is_set():
            return
        inflight: dict[str, list[int]] = {}
        for pull in self._host.pulls():
            held = list(pull.held)
            if held:
                inflight[f"{pull.stream}.{pull.consumer}"] = held
                self._touch(connection, pull, held)
        body = msgspec.msgpack.encode(self._pulse(inflight))
        connection.publish(subjects.registry(f"host.{self._host.id}"), body, _ROLLUP)

    def _pulse(self, inflight: dict[str, list[int]]) -> Pulse:
        host = self._host
        instances = {instance.name: instance.info() for instance in host.instances()}
        for stealable in host.stealable():
            instances[stealable.name].overdue = self._giving.count(stealable)
        return Pulse(
            host=host.id,
            at=time.time(),
            started=self._started,
            pid=os.getpid(),
            node=platform.node(),
            version=host.version,
            instances=instances,
            inflight=inflight,
            late=round(max(0.0, time.monotonic() - host.beat - 0.05), 3),
            draining=host.draining,
            provisioned=host.provisioned,
            name=host.name,
        )

    def _touch(self, connection: Connection, pull: Pull, held: list[int]) -> None:
        """Tell the server that messages held for a while are being worked on."""
        now = time.monotonic()
        limit = now - self._host.node.settings.ack_wait / _TOUCH
        for sequence in held:
            delivered = pull.held.get(sequence)
            if delivered is None:
                continue
            if delivered.touched == 0.0:
                delivered.touched = now
            elif delivered.touched < limit:
                delivered.touched = now
                connection.publish(delivered.reply, b"+WPI")

    def _look_at_loop(self) -> None:
        late = time.monotonic() - self._host.beat
        if late < LATE:
            self._reported = 0.0
            return
        if self._reported and late < self._reported * 4:
            return
        self._reported = late
        frames = sys._current_frames()  # noqa: SLF001 - the documented way to see another thread's stack
        what, where = _culprit(frames.get(self._main))
        self._log.warning(
            "event_loop_blocked",
            by=what,
            at=where,
            seconds=round(late, 2),
            fix=_fix(what),
        )


_ROLLUP = H.encode([("Nats-Rollup", "sub")])
_HANDLES, _DRIVES = ("callboard.actors.handling", "handle"), ("callboard.actors.running", "_function")
"""Where handlers and workflows are on the stack: module and function; users' have any names."""


_UNKNOWN = "unknown code"


def _fix(what: str) -> str:
    """What helps against something that blocks the loop."""
    if what == _UNKNOWN:
        return "no handler stands there: unless that code is yours, the machine is too busy, or stood still"
    return "make the method a plain 'def' (it then runs in a thread), or give it cpu=True"


def _culprit(frame: FrameType | None) -> tuple[str, str]:
    """Which handler stands on this stack, and where in its code it is."""
    where = ""
    what = _UNKNOWN
    while frame is not None:
        file = frame.f_code.co_filename
        if not where and f"{os.sep}asyncio{os.sep}" not in file:
            where = f"{Path(file).name}:{frame.f_lineno} {frame.f_code.co_name}"
        place, known = (frame.f_globals.get("__name__"), frame.f_code.co_name), frame.f_locals
        if place == _HANDLES and known.get("calls"):
            what = known["calls"][0].method.where
        elif place == _DRIVES:
            what = f"workflow {known['run'].maker.context.workflow}"
        frame = frame.f_back
    return what, where
