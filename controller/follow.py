"""Keeping a view true: reports as they come, heartbeats, and whom to ask for what was missed."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from callboard.actors import registry
from callboard.controller.view import View
from callboard.infra import log, subjects
from callboard.infra.errors import CallboardError
from callboard.infra.messages.control import Tell
from callboard.infra.messages.registry import Pulse

if TYPE_CHECKING:
    from callboard.actors.node import Node

PATIENCE = 2.0
"""Seconds for which a host may be asked for its whole state before nobody waits for it."""
_TICK = 0.2
_ASK_AGAIN = 1.0
_PRUNE = 1.0
_LOOK = 5.0
_REPLAYED = 256
"""Reports in the stream that are read on beginning: what they say of actors is more than nothing."""
_decode_pulse = msgspec.msgpack.Decoder(Pulse).decode
_TELL = msgspec.msgpack.encode(Tell())


class Follower:
    """Follows what all hosts tell.

    Reports are heard as they are published, beside the stream: what is missed is asked for.

    Args:
        node: of this process, open; view: what is kept.
    """

    def __init__(self, node: Node, view: View) -> None:
        self._node = node
        self.view = view
        self._sids: list[int] = []
        self._task: asyncio.Task[None] | None = None
        self._heard: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._behind: dict[str, float] = {}
        self._torn: set[str] = set()
        """Sources of which something was missed since they began to tell their whole state."""
        self._pruned = self._looked = time.monotonic()
        self._log = log.get("follower")

    async def start(self) -> None:
        """Read what is known, then listen, and ask everybody for their state. Idempotent."""
        if self._task is not None:
            return
        await self._replay()
        connection = self._node.connection
        self._sids = [
            connection.subscribe(subjects.telemetry(">"), self._on_report),
            connection.subscribe(subjects.registry("host.*"), self._on_pulse),
        ]
        connection.on_reconnect(self._ask_all)
        self.view.announce(await registry.actors(self._node))
        for pulse in await registry.hosts(self._node):
            self._note(pulse)
        for name in [self.view.hosts.keys[row] for row in self.view.hosts.rows]:
            if name not in self._heard:
                self.view.host_gone(name)
        self._ask_all()
        self._task = self._node.loop.create_task(self._watch())

    def stop(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            for sid in self._sids:
                self._node.connection.unsubscribe(sid)

    @property
    def complete(self) -> bool:
        """Whether every host that reports has told its whole state.

        One that has not done so for a while, such as one whose event loop is blocked, holds nobody up.
        """
        due = time.monotonic() - PATIENCE
        return all(since < due for since in self._behind.values())

    async def _replay(self) -> None:
        info = await self._node.topology.api(f"STREAM.INFO.{subjects.TELEMETRY}")
        last = int(info.get("state", {}).get("last_seq", 0))
        after = max(0, last - _REPLAYED)
        for stored in await self._node.reader.read(subjects.TELEMETRY, subjects.telemetry(">"), after):
            self.view.read(_source(stored.subject), stored.body)

    # -- what is heard -------------------------------------------------------------------------------

    def _on_report(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        source = _source(subject.decode("utf-8", "replace"))
        report, missed = self.view.read(source, data)
        if report is not None or missed:
            self._heard[source] = time.monotonic()  # also who has no heartbeat is forgotten when it is silent
        if missed:
            self._torn.add(source)
        if report is not None and report.part == 1:  # what was missed before is told again from here on
            self._torn.discard(source)
        if report is not None and report.last and source not in self._torn:
            self._behind.pop(source, None)
        if missed:
            self._behind.setdefault(source, time.monotonic())
            self._ask(source)

    def _on_pulse(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        host = subject.decode("utf-8", "replace").rpartition(".")[2]
        if not data:  # it has left in good order
            self._forget(host)
            return
        try:
            pulse = _decode_pulse(data)
        except (msgspec.DecodeError, RecursionError):
            return
        if pulse.host == host:
            self._note(pulse)

    def _note(self, pulse: Pulse) -> None:
        self._heard[pulse.host] = time.monotonic()
        self.view.pulse(pulse)

    def _ask_all(self) -> None:
        now = time.monotonic()
        self._behind = {self.view.hosts.keys[row]: now for row in self.view.hosts.rows}
        self._node.connection.publish(subjects.control(), _TELL)
        self._asked = dict(self._behind)

    def _ask(self, source: str) -> None:
        now = time.monotonic()
        if now - self._asked.get(source, 0.0) >= _ASK_AGAIN and subjects.is_token(source):
            self._asked[source] = now
            self._node.connection.publish(subjects.control(source), _TELL)

    # -- what is not heard ---------------------------------------------------------------------------

    async def _watch(self) -> None:
        dead_after = self._node.settings.dead_after
        turned = time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            late, turned = now - turned - _TICK, now
            if late > dead_after / 2 or not self._node.connection.connected.is_set():
                self._heard = dict.fromkeys(self._heard, now)  # nobody could be heard
            if not self._node.connection.connected.is_set():
                continue
            for row in self.view.hosts.rows:  # others may tell of hosts that are gone already
                self._heard.setdefault(self.view.hosts.keys[row], now)
            for host in [h for h, at in self._heard.items() if now - at > dead_after]:
                self._log.info("host_gone", host=host)
                self._forget(host)
            for source in self._behind:
                self._ask(source)
            if now - self._pruned > _PRUNE:
                self._pruned = now
                self.view.prune(time.time())
            if now - self._looked > _LOOK:
                self._looked = now
                await self._look_for_actors()

    async def _look_for_actors(self) -> None:
        try:
            self.view.announce(await registry.actors(self._node))
        except CallboardError as error:
            self._log.warning("registry_unread", error=str(error))

    def _forget(self, host: str) -> None:
        self._heard.pop(host, None)
        self._asked.pop(host, None)
        self._behind.pop(host, None)
        self._torn.discard(host)
        self.view.host_gone(host)


def _source(subject: str) -> str:
    return subject.rpartition(".")[2]
