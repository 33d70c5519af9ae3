"""The hosts of a provisioner, as the leading controller keeps and changes them.

What there is is found out anew by whoever leads: from the provisioner, by its own names and labels, and from
heartbeats. What a policy, or ``min_instances``, wants is a decision like all others: stored before it is
carried out, and only by the controller that leads. So two controllers never start the same instance twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from callboard.controller.provisioning.roster import Roster
from callboard.infra import log
from callboard.infra.errors import CallboardError

if TYPE_CHECKING:
    from callboard.controller.policy import Act
    from callboard.controller.provisioning.port import Provisioner
    from callboard.controller.view import View
    from callboard.infra.messages.policy import Decision

AGAIN = 10.0
"""Seconds after which what has failed may be tried again."""


class Fleet:
    """Hosts that this controller may start and end.

    Args:
        provisioner: that does so; view: where policies see them.
        drain: ends a host of which only its heartbeat is known, as another controller minds its process.
    """

    def __init__(self, provisioner: Provisioner, view: View, drain: Callable[[str], None]) -> None:
        self._provisioner = provisioner
        self._drain = drain
        self._view = view
        self._roster = Roster(view, provisioner)
        self._missing: dict[str, int] = {}
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._aside: set[asyncio.Task[None]] = set()
        self._log = log.get("fleet")

    async def start(self) -> None:
        """Get the provisioner ready.

        Raises:
            ProvisionerUnusable: it cannot work.
        """
        self._roster.declared = await self._provisioner.start()

    async def stop(self) -> None:
        """Drain what ends with this process. Idempotent."""
        self.lead_no_more()
        if self._aside:
            await asyncio.wait(self._aside)
        await self._provisioner.stop()

    @property
    def least(self) -> dict[str, int]:
        """What is known to be kept: ``min_instances`` by actor."""
        kept = {info.name: info.directives.get("min_instances", 0) for info in self._roster.declared}
        return {actor: count for actor, count in kept.items() if count}

    def lead(self) -> None:
        """Look from now on, and let decisions be made."""
        self._provisioner.lead()
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def lead_no_more(self) -> None:
        """Another controller may lead. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._roster.known = False
        self._view.room = {}
        self._provisioner.lead_no_more()

    # -- looking -------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        failing = False
        while True:
            try:
                await self._look()
                failing = False
            except Exception as error:  # noqa: BLE001 - a library's surprise must not end all provisioning
                self._view.room = {actor: {} for actor in self._provisioner.places}
                self._roster.known = False
                if not failing:
                    self._log.error("provisioner_unavailable", reason=_told(error), exc_info=_surprise(error))
                failing = True
            await asyncio.sleep(self._provisioner.every)

    async def _look(self) -> None:
        async with self._looking:
            self._roster.hosts = await self._provisioner.look()
            self._roster.known = self._task is not None
        if not self._roster.known:
            return
        self._roster.show()
        for one in self._roster.silent():
            self._log.warning(
                "host_silent", actor=one.actor, where=one.where, pid=one.pid, action="ending it: it hangs"
            )
            await self._provisioner.kill(one)

    # -- deciding and carrying out -------------------------------------------------------------------

    def keep(self) -> Act:
        """Decide what ``min_instances`` asks for."""
        act = self._roster.keep()
        for actor, count in self._roster.lacking.items():
            self._miss(actor, count)
        return act

    def _miss(self, actor: str, lacking: int) -> None:
        """Tell, once, of what cannot be started."""
        if lacking > self._missing.get(actor, 0):
            self._log.warning(
                "too_few_instances",
                actor=actor,
                lacking=lacking,
                fix="give the controller more room (--hosts, --resource), or end what else runs there",
            )
            self._missing[actor] = lacking
        if lacking <= 0 and not self._view.actors["starting"][self._view.actors.row(actor)]:
            self._missing[actor] = 0

    def begin(self, decision: Decision) -> None:
        """Carry out a decision that is stored; what goes wrong is logged."""
        name = self._roster.begin(decision)
        if decision.what == "kill":
            self._spawn(self._kill(name))
        else:
            self._spawn(self._provision(name, decision.where))

    async def _provision(self, actor: str, where: str) -> None:
        # Nobody looks meanwhile: what is being started is counted once, here or there.
        async with self._looking:
            try:
                await self._provisioner.provision(actor, where)
                self._roster.hosts = await self._provisioner.look()
                self._log.info("provisioned", actor=actor, where=where)
            except Exception as error:  # noqa: BLE001 - as in _watch
                self._roster.refused(actor, AGAIN)
                self._log.error(
                    "not_provisioned",
                    actor=actor,
                    where=where,
                    reason=_told(error),
                    exc_info=_surprise(error),
                )
            finally:
                self._roster.begun[actor, where] -= 1
        if self._roster.known:
            self._roster.show()

    async def _kill(self, host: str) -> None:
        found = self._roster.by_host.get(host)
        try:
            if found is not None:
                await self._provisioner.kill(found)
                self._log.info("killed", host=host, actor=found.actor, where=found.where)
            else:  # the process of another controller, which led before
                self._drain(host)
                self._log.info("killed", host=host, where=self._view.processes.get(host, ("", 0))[0])
        except Exception as error:  # noqa: BLE001 - as in _watch
            self._log.error("not_killed", host=host, reason=_told(error), exc_info=_surprise(error))
            self._roster.not_killed(host, AGAIN)

    def end_if_mine(self, host: str) -> None:
        """End a host if its process is a child of this one, whoever leads."""
        process = self._view.processes.get(host)
        if process is not None:
            self._spawn(self._end(host, process))

    async def _end(self, host: str, process: tuple[str, int]) -> None:
        try:
            mine = [
                one for one in await self._provisioner.look() if one.pid and (one.node, one.pid) == process
            ]
            for one in mine:
                await self._provisioner.kill(one)
                self._log.info(
                    "killed", host=host, actor=one.actor, where=one.where, reason="the leader says so"
                )
        except Exception as error:  # noqa: BLE001 - as in _watch
            self._log.error("not_killed", host=host, reason=_told(error), exc_info=_surprise(error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _surprise(error: Exception) -> Exception | None:
    """An error whose traceback is of interest: nobody has foreseen it."""
    return None if isinstance(error, CallboardError) else error
