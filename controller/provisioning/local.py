"""Hosts as processes on this machine: each ends with this process, and is started again when it crashes."""

from __future__ import annotations

import asyncio
import platform
import signal
import sys
import time
from collections.abc import Sequence

from callboard.actors.app import split
from callboard.actors.resources import capacity
from callboard.controller.dev import Broken, Child, ended_by
from callboard.controller.provisioning.port import Provided
from callboard.controller.provisioning.room import most_hosts, plenty, resource_words
from callboard.controller.restarts import Restarts
from callboard.infra import log
from callboard.infra.errors import ProvisionerUnusable, ProvisionFailed, by_code
from callboard.infra.messages.registry import ActorInfo
from callboard.infra.settings import Settings

AFTER_GRACE = 5.0
"""Seconds beyond its grace after which a host that was told to end is killed."""
LOOK_EVERY = 0.1


class _Slot:
    """A host that is to run, whichever process it is at the moment.

    Attributes:
        begun: it was told of the server; works: it has told that it does; ending: it was told to end.
    """

    def __init__(self, number: int, actor: str) -> None:
        self.number = number
        self.actor = actor
        self.child: Child | None = None
        self.begun = self.works = self.ending = False
        self.task: asyncio.Task[None] | None = None


class LocalProcesses:
    """Hosts as children of this process, on the leash of ``callboard dev``: when it is gone, they drain.

    Args:
        app: applications, as for ``callboard host``.
        settings: theirs; ``resources``: what this machine has for all of them together.
        most: processes at one time; 0: as :func:`most_hosts`.
        options: further options of ``callboard host``.
    """

    def __init__(
        self, app: Sequence[str], settings: Settings, most: int = 0, options: Sequence[str] = ()
    ) -> None:
        self.every = LOOK_EVERY
        self.where = platform.node()
        """The one place: this machine."""
        self.capacity = {self.where: capacity(settings)}
        self.most = most
        self.places: dict[str, list[str]] = {}
        self._app = app
        self._settings = settings
        self._options = options
        self._spec: dict[str, str] = {}
        self._needs: dict[str, dict[str, float]] = {}
        self._slots: dict[int, _Slot] = {}
        self._number = 0
        self._leading = False
        self._killing: set[asyncio.Task[None]] = set()
        self._log = log.get("provisioner")

    async def start(self) -> list[ActorInfo]:
        """Import the applications, in processes of their own, to know their actors.

        Raises:
            ProvisionerUnusable: one cannot be imported; or what its error says.
        """
        found = []
        for spec in self._app:
            for actor in await self._declared(spec):
                self._spec[actor.name] = f"{split(spec)[0]}:{actor.name}"
                self._needs[actor.name] = actor.directives.get("resources", {})
                self.places[actor.name] = [self.where]
                found.append(actor)
        self.most = self.most or most_hosts(self.capacity[self.where]["cpu"], found)
        return found

    async def _declared(self, spec: str) -> list[ActorInfo]:
        # Each actor gets a host of its own: what they need together does not matter here.
        child = Child(self._command(spec, plenty(self.capacity[self.where])))
        try:
            said = await child.load()
        finally:
            child.send(signal.SIGKILL)  # it has been told of no server: nothing of it is lost
        await child.ended()
        if isinstance(said, Broken):
            error = by_code().get(said.code, ProvisionerUnusable)
            raise error(said.message, **{"provisioner": "local", "problem": said.message, **said.fields})
        return said.actors + said.left_out

    def _command(self, spec: str, has: dict[str, float]) -> list[str]:
        grace = ["--supervised", "--grace", f"{self._settings.grace}"]
        return [sys.executable, "-m", "callboard", "host", spec, *grace, *resource_words(has), *self._options]

    async def stop(self) -> None:
        """Drain all hosts, and kill those that have not ended after their grace. Idempotent."""
        self.lead_no_more()
        for slot in self._slots.values():
            self._end(slot)
        tasks = [slot.task for slot in self._slots.values() if slot.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        if self._killing:
            await asyncio.wait(self._killing)

    def lead(self) -> None:
        """Hosts that crash are started again from now on."""
        self._leading = True

    def lead_no_more(self) -> None:
        """Those that work go on; those that do not yet would be seen too late by whoever leads next."""
        self._leading = False
        for slot in self._slots.values():
            if not slot.works:
                self._end(slot)

    async def look(self) -> list[Provided]:
        """The processes, and those that are about to be started again."""
        found = []
        for slot in self._slots.values():
            pid = slot.child.pid if slot.child is not None else 0
            node = self.where if pid else ""
            found.append(Provided(str(slot.number), slot.actor, self.where, node, pid, slot.ending))
        return found

    async def provision(self, actor: str, where: str) -> None:
        """Start a process; it is minded until it ends for good."""
        if not self._leading:
            raise ProvisionFailed(
                f"{actor} is not started at {where}: another controller leads",
                what=actor,
                where=where,
                problem="another controller leads",
            )
        self._number += 1
        slot = self._slots[self._number] = _Slot(self._number, actor)
        slot.task = asyncio.get_running_loop().create_task(self._mind(slot))

    async def kill(self, host: Provided) -> None:
        """Send SIGTERM; SIGKILL follows when the grace is over."""
        slot = self._slots.get(int(host.name))
        if slot is not None:
            self._end(slot)

    # -- one host --------------------------------------------------------------------------------------

    async def _mind(self, slot: _Slot) -> None:
        """Run a host, and another one in its place when it crashes."""
        restarts, command = Restarts(), self._command(self._spec[slot.actor], self._needs[slot.actor])
        try:
            while True:
                slot.child = child = Child(command)
                how = await self._life(slot, child)
                slot.begun, slot.works, slot.child = False, False, None
                if slot.ending or not self._leading or not how:
                    return
                wait = restarts.crashed(time.monotonic() - child.born)
                self._log.warning("host_crashed", actor=slot.actor, reason=how, retry_in_s=wait)
                await asyncio.sleep(wait)
        finally:
            del self._slots[slot.number]
            if slot.child is not None:
                slot.child.send(signal.SIGKILL)
                await slot.child.ended()

    async def _life(self, slot: _Slot, child: Child) -> str:
        """One process from its start to its end; gives how it has crashed, or nothing if it has not."""
        said = await child.load()
        if isinstance(said, Broken):
            return said.message
        slot.begun = True
        slot.works = await child.work(self._settings.nats_url)
        code = await child.ended()
        return ended_by(code) if code else ""

    def _end(self, slot: _Slot) -> None:
        if slot.ending:
            return
        slot.ending = True
        assert slot.task is not None
        if not slot.begun or slot.child is None:
            slot.task.cancel()  # nothing of it is lost
            return
        slot.child.send(signal.SIGTERM)
        task = asyncio.get_running_loop().create_task(self._kill_later(slot, slot.child))
        self._killing.add(task)
        task.add_done_callback(self._killing.discard)

    async def _kill_later(self, slot: _Slot, child: Child) -> None:
        assert slot.task is not None
        await asyncio.wait([slot.task], timeout=self._settings.grace + AFTER_GRACE)
        if not slot.task.done():
            self._log.warning("host_killed", actor=slot.actor, pid=child.pid, reason="it did not end in time")
            child.send(signal.SIGKILL)
