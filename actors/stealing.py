"""Taking calls from hosts where they wait, for instances that have nothing to do.

A heartbeat tells how many calls of an actor wait too long in its host. An instance of that actor with free
slots, whose own lane is empty, asks that host for some, at once; no controller decides. It asks for what it
can start. When it has worked that off quickly it asks for eight times as much, so that short calls come in
large hauls, while long ones stay where the next free slot finds them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from callboard.actors.giving import MOST
from callboard.infra import log, subjects
from callboard.infra.errors import CallboardError
from callboard.infra.messages.control import Steal, Stolen

if TYPE_CHECKING:
    from callboard.actors.host import Host
    from callboard.actors.instance import Instance
    from callboard.infra.messages.registry import Pulse

_ANSWER = 1.0
_ON_THEIR_WAY = 0.1
"""Seconds that an instance waits for calls it was given before it counts as idle again."""
_QUICKLY = 0.05
_MORE = 8
_REST = 4
"""The next haul is asked for when this part of the last one is left."""
_decode = msgspec.msgpack.Decoder(Stolen).decode


class _Hauls:
    """What an instance has taken lately.

    Attributes:
        most: calls that it asks for next, if it has not more free slots.
        coming: calls that it was given and has not got; at: when, monotonic seconds.
    """

    __slots__ = ("asking", "at", "coming", "most")

    def __init__(self) -> None:
        self.most = 0
        self.coming = 0
        self.at = 0.0
        self.asking = False


class Stealing:
    """Takes calls for the instances of one host.

    Args:
        host: who takes them.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._overdue: dict[str, dict[str, int]] = {}
        self._hauls: dict[str, _Hauls] = {}
        self._log = log.get("stealing")

    def heard(self, pulse: Pulse) -> None:
        """A host tells how it stands."""
        if pulse.host == self._host.id:
            return
        for actor, info in pulse.instances.items():
            if info.overdue:
                self._overdue.setdefault(actor, {})[pulse.host] = info.overdue
            elif actor in self._overdue:
                self._none_left(actor, pulse.host)
        if self._overdue:
            for instance in self._host.stealable():
                self.look(instance)

    def left(self, host: str) -> None:
        """A host is there no more."""
        for actor in list(self._overdue):
            self._none_left(actor, host)

    def _none_left(self, actor: str, host: str) -> None:
        hosts = self._overdue.get(actor, {})
        hosts.pop(host, None)
        if not hosts:
            self._overdue.pop(actor, None)

    def came(self, actor: str) -> None:
        """A call that was taken elsewhere is here."""
        hauls = self._hauls.get(actor)
        if hauls is not None:
            hauls.coming -= 1

    def look(self, instance: Instance) -> None:
        """Take calls for an instance, if it is idle and some wait elsewhere."""
        hosts = self._overdue.get(instance.name)
        if not hosts or self._host.draining or instance.standby:
            return
        hauls = self._hauls.setdefault(instance.name, _Hauls())
        since = time.monotonic() - hauls.at
        if hauls.asking or (hauls.coming > 0 and since < _ON_THEIR_WAY):
            return
        quickly = since < _QUICKLY and not instance.serial  # sessions come one by one
        rest = hauls.most // _REST if quickly else 0
        if instance.pending > rest or (instance.slots.free <= 0 and not rest):
            return
        hauls.most = _MORE * hauls.most if quickly else 0
        hauls.most = min(MOST, max(hauls.most, instance.slots.free))
        hauls.asking = True
        victim = max(hosts, key=lambda host: (hosts[host], host))
        self._host.caller.spawn(self._take(instance, victim, hauls))

    async def _take(self, instance: Instance, victim: str, hauls: _Hauls) -> None:
        asked = msgspec.msgpack.encode(Steal(instance.name, self._host.id, hauls.most))
        hauls.coming = 0
        try:
            answer = _decode(await self._host.node.connection.request(subjects.steal(victim), asked, _ANSWER))
        except (CallboardError, msgspec.DecodeError) as error:
            self._log.debug("nothing_taken", host=victim, error=str(error))
            self._none_left(instance.name, victim)
            return
        finally:
            hauls.asking = False
        hauls.at = time.monotonic()
        hauls.coming += answer.calls
        if answer.left and answer.calls:
            self._overdue.setdefault(instance.name, {})[victim] = answer.left
        else:
            self._none_left(instance.name, victim)
        self.look(instance)
