"""The hosts of a provisioner, as the leading controller keeps and changes them.

What there is is found out anew by whoever leads: from the provisioner, by its own names and labels, and from
heartbeats. What a policy, or ``min_instances``, wants is a decision like all others: stored before it is
carried out, and only by the controller that leads. So two controllers never start the same instance twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from callboard.controller.changes import running
from callboard.controller.policy import Act
from callboard.controller.provisioning.port import Provided, Provisioner
from callboard.controller.provisioning.room import room
from callboard.infra import log
from callboard.infra.errors import CallboardError

if TYPE_CHECKING:
    from callboard.controller.view import View
    from callboard.infra.messages.policy import Decision
    from callboard.infra.messages.registry import ActorInfo

KEEPER = "callboard"
"""The policy of what is started because of ``min_instances``."""
AGAIN = 10.0
"""Seconds after which what has failed may be tried again."""
KEEP_EVERY = 0.1
"""Seconds after which it is seen that there are too few."""
SETTLES = 30.0
"""Seconds for which a host that is told to end counts as gone, although it does not say that it drains."""


class Fleet:
    """Hosts that this controller may start and end.

    Args:
        provisioner: that does so; view: where policies see them.
    """

    def __init__(self, provisioner: Provisioner, view: View) -> None:
        self._provisioner = provisioner
        self._view = view
        self._declared: list[ActorInfo] = []
        self._hosts: list[Provided] = []
        self._by_host: dict[str, Provided] = {}
        self._known = False
        self._due = 0.0
        self._begun: Counter[tuple[str, str]] = Counter()
        self._killed: dict[str, float] = {}
        self._refused: dict[str, float] = {}
        self._lacking: dict[str, int] = {}
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._aside: set[asyncio.Task[None]] = set()
        self._log = log.get("fleet")

    async def start(self) -> None:
        """Get the provisioner ready.

        Raises:
            ProvisionerUnusable: it cannot work.
        """
        self._declared = await self._provisioner.start()

    async def stop(self) -> None:
        """Drain what ends with this process. Idempotent."""
        self.lead_no_more()
        if self._aside:
            await asyncio.wait(self._aside)
        await self._provisioner.stop()

    @property
    def least(self) -> dict[str, int]:
        """What is known to be kept: ``min_instances`` by actor."""
        kept = {info.name: info.directives.get("min_instances", 0) for info in self._declared}
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
        self._known = False
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
                self._known = False
                if not failing:
                    self._log.error("provisioner_unavailable", reason=_told(error), exc_info=_surprise(error))
                failing = True
            await asyncio.sleep(self._provisioner.every)

    async def _look(self) -> None:
        async with self._looking:
            self._hosts = await self._provisioner.look()
            self._known = self._task is not None
        if self._known:
            self.show()

    def show(self) -> None:
        """Put what is known into the view."""
        view, hosts = self._view, self._view.hosts
        view.announce(self._declared)
        self._match()
        mine = hosts.find(self._by_host)
        hosts["provided"][:] = False
        hosts["provided"][mine] = True
        now = time.monotonic()
        self._killed = {host: until for host, until in self._killed.items() if host in hosts and until > now}
        hosts["killed"][:] = False
        hosts["killed"][hosts.find(self._killed)] = True
        matched = set(self._by_host.values())
        starting = Counter(one.actor for one in self._hosts if not one.ending and one not in matched)
        starting.update(actor for actor, _ in self._begun.elements())
        rows = [view.actors.row(actor) for actor in self._provisioner.places]
        view.actors["starting"][:] = 0
        for row in rows:
            view.actors["starting"][row] = starting[view.actors.keys[row]]
        view.room = self._room()

    def _match(self) -> None:
        """Which of the hosts that are heard are those of the provisioner."""
        processes = self._view.processes
        known = {process: host for host, process in processes.items()}
        nodes = {node: host for host, (node, _) in processes.items()}
        found = {}
        for one in self._hosts:
            host = known.get((one.node, one.pid)) if one.pid else nodes.get(one.node)
            if host is not None and one.node and host in self._view.hosts:
                found[host] = one
        self._by_host = found

    def _room(self) -> dict[str, dict[str, int]]:
        provisioner, now = self._provisioner, time.monotonic()
        needs = {info.name: info.directives.get("resources", {}) for info in self._declared}
        used = [(one.actor, one.where) for one in self._hosts]
        used += self._begun.elements()
        count = len({one.name for one in self._hosts}) + self._begun.total()
        found = room(
            provisioner.places, provisioner.capacity, needs, used + self._others(), provisioner.most - count
        )
        self._refused = {actor: until for actor, until in self._refused.items() if until > now}
        return {actor: {} if actor in self._refused else places for actor, places in found.items()}

    def _others(self) -> list[tuple[str, str]]:
        """Actor and machine of the instances that others have started where there are places."""
        view = self._view
        elsewhere = [host for host in view.processes if host not in self._by_host and host in view.hosts]
        found = []
        for host in elsewhere:
            node = view.processes[host][0]
            if node in self._provisioner.capacity:
                here = view.instances["actor"][view.instances.where(host=view.hosts.row(host))]
                found += [(view.actors.keys[actor], node) for actor in here.tolist()]
        return found

    # -- deciding and carrying out -------------------------------------------------------------------

    def keep(self) -> Act:
        """Decide what ``min_instances`` asks for."""
        view = self._view
        act = Act(view, KEEPER)
        now = time.monotonic()
        if not self._known or now < self._due:
            return act
        self._due = now + KEEP_EVERY
        lacking = {}
        wanted = []
        for actor in self._provisioner.places:
            row = view.actors.row(actor)
            least = int(view.actors["least"][row])
            have = running(view, row) + int(view.actors["starting"][row])
            lacking[actor] = least - have
            reason = f"min_instances is {least}, and there are {have}"
            wanted += [(number, actor, reason) for number in range(have, least)]
        for _, actor, reason in sorted(wanted):  # each has one before any has two
            act.provision(actor, reason=reason)
        for actor, count in lacking.items():
            self._miss(actor, count - sum(one.key.endswith(f".{actor}") for one in act.decisions))
        return act

    def _miss(self, actor: str, lacking: int) -> None:
        """Tell, once, of what cannot be started."""
        if lacking > self._lacking.get(actor, 0):
            self._log.warning(
                "too_few_instances",
                actor=actor,
                lacking=lacking,
                fix="give the controller more room (--hosts, --resource), or end what else runs there",
            )
            self._lacking[actor] = lacking
        if lacking <= 0 and not self._view.actors["starting"][self._view.actors.row(actor)]:
            self._lacking[actor] = 0

    def begin(self, decision: Decision) -> None:
        """Carry out a decision that is stored; what goes wrong is logged."""
        name = decision.key.rpartition(".")[2]
        if decision.what == "kill":
            self._killed[name] = time.monotonic() + SETTLES
            self._spawn(self._kill(name))
        else:
            self._begun[name, decision.where] += 1
            self._spawn(self._provision(name, decision.where))
        self.show()

    async def _provision(self, actor: str, where: str) -> None:
        # Nobody looks meanwhile: what is being started is counted once, here or there.
        async with self._looking:
            try:
                await self._provisioner.provision(actor, where)
                self._hosts = await self._provisioner.look()
                self._log.info("provisioned", actor=actor, where=where)
            except Exception as error:  # noqa: BLE001 - as in _watch
                self._refused[actor] = time.monotonic() + AGAIN
                self._log.error(
                    "not_provisioned",
                    actor=actor,
                    where=where,
                    reason=_told(error),
                    exc_info=_surprise(error),
                )
            finally:
                self._begun[actor, where] -= 1
        if self._known:
            self.show()

    async def _kill(self, host: str) -> None:
        found = self._by_host.get(host)
        try:
            if found is not None:
                await self._provisioner.kill(found)
                self._log.info("killed", host=host, actor=found.actor, where=found.where)
        except Exception as error:  # noqa: BLE001 - as in _watch
            self._log.error("not_killed", host=host, reason=_told(error), exc_info=_surprise(error))
            self._killed[host] = time.monotonic() + AGAIN

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _surprise(error: Exception) -> Exception | None:
    """An error whose traceback is of interest: nobody has foreseen it."""
    return None if isinstance(error, CallboardError) else error
