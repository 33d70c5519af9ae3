"""How many calls the hosts of a model have: what they told last, and what was sent from here since then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from callboard.infra.messages.registry import Pulse


class Load(NamedTuple):
    """Of one instance.

    Attributes:
        calls: that it has, in its engine or waiting; slots: that its engine can have.
    """

    calls: int
    slots: int


class _Mine:
    """The calls of this process at one instance.

    Attributes:
        open: now; most, before: at one time since the last heartbeat, and between the two before.
        told: as many as that heartbeat may count.
    """

    __slots__ = ("before", "most", "open", "told")

    def __init__(self) -> None:
        self.open = self.most = self.before = self.told = 0


class Loads:
    """Follows heartbeats, and the calls of this process.

    Args:
        alive: the last heartbeat of every host.
    """

    def __init__(self, alive: Mapping[str, Pulse]) -> None:
        self._alive = alive
        self._mine: dict[str, dict[str, _Mine]] = {}

    def sent(self, actor: str, host: str) -> None:
        """A call was sent to a host."""
        mine = self._mine.setdefault(host, {}).setdefault(actor, _Mine())
        mine.open += 1
        mine.most = max(mine.most, mine.open)

    def ended(self, actor: str, host: str) -> None:
        """It has its outcome."""
        mine = self._mine.get(host, {}).get(actor)
        if mine is not None and mine.open:
            mine.open -= 1

    def heard(self, pulse: Pulse) -> None:
        """A heartbeat has come. It was under way: it may count any call from here that was open lately."""
        for mine in self._mine.get(pulse.host, {}).values():
            mine.told = max(mine.most, mine.before)
            mine.before, mine.most = mine.most, mine.open

    def left(self, host: str) -> None:
        """A host is gone."""
        self._mine.pop(host, None)

    def of(self, actor: str, host: str) -> Load:
        """How it is now, as far as that can be known here."""
        mine = self._mine.get(host, {}).get(actor) or _Mine()
        pulse = self._alive.get(host)
        told = None if pulse is None else pulse.instances.get(actor)
        if told is None:
            return Load(mine.open, 1)
        others = max(0, told.busy + told.mailbox - mine.told)
        return Load(others + mine.open, max(1, told.slots))
