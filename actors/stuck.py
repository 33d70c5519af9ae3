"""Sessions that wait in an instance for a slot, and may move to a host that has one.

Calls of an agent with managed state go where their session is. Where calls of other sessions have all slots
there, the session moves as a whole to an idle host that asks, in the same way as by ``callboard migrate``. So
it is at one place at any time, and its calls keep their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from callboard.actors.mailbox import rank
from callboard.actors.unbegun import is_late, next_late

if TYPE_CHECKING:
    from callboard.actors.inbound import Call
    from callboard.actors.instance import Instance


class Stuck:
    """Which sessions of an instance these are.

    Args:
        instance: of an agent with managed state that keeps nothing in its process.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._watching = False

    def overdue(self) -> list[Call]:
        """Of each session that has waited too long the call that goes next, the most urgent one first.

        One that a route keeps here stays, and so does one of which a call has begun. For the heart, too.
        """
        instance, host = self._instance, self._instance.host
        after = host.node.settings.steal_after
        if not after or instance.slots.free > 0 or host.draining or instance.standby:
            return []
        waiting = [c for c in instance.mailbox.all() if is_late(host, c, after) and self._may_go(c)]
        return sorted(waiting, key=rank)

    def _may_go(self, call: Call) -> bool:
        instance = self._instance
        if instance.host.routes.keeps(instance.name, call.session, instance.host.id):
            return False
        return instance.running_in(call.session) == [call]

    def look_soon(self) -> None:
        """Have it looked, when the next one has waited too long: idle hosts hear of it at once."""
        host = self._instance.host
        after = host.node.settings.steal_after
        if after and not self._watching and self._waits():
            self._watching = True
            host.node.loop.call_later(next_late(self._instance.mailbox.all(), after), self._look)

    def _look(self) -> None:
        self._watching = False
        if self._waits():
            self._instance.host.tell_of_waiting()
            self.look_soon()

    def _waits(self) -> bool:
        return len(self._instance.mailbox) > 0 and self._instance.slots.free <= 0
