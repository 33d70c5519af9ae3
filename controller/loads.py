"""How much there is to do for each actor of which instances can be started, and who does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from callboard.controller.policy import instances
from callboard.controller.reading import State

if TYPE_CHECKING:
    from callboard.controller.view import View

_FIRST = 4.0


class Load(NamedTuple):
    """The load of one actor.

    Attributes:
        calls: in the system: that run, and that wait in mailboxes and lanes. Of a workflow its runs, and the
            requests that nobody has taken.
        slots: of one instance, on average. While none runs nobody knows: as if one were enough.
        have: instances, those that still start included; starting: those that do.
        room: how many more could be started; below 0: there may be no more, or starting one has just failed.
        idlest: host of the instance with the fewest calls, of those that can be ended; empty: none can.
    """

    actor: str
    calls: int
    slots: float
    have: int
    starting: int
    room: int
    idlest: str


def loads(view: View) -> Iterator[Load]:
    """The load of each actor that the provisioner can start.

    While nobody drives a workflow its requests are not seen: the first instance is up to ``min_instances``.
    """
    there = dict(instances(view)) | dict(instances(view, workflows=True))
    futures, told = view.futures, view.instances
    waits = (futures["state"] == State.SENT) | (futures["state"] == State.WAITING)
    waiting = futures.count_by("actor", len(view.actors.keys), waits)
    for actor, places in view.room.items():
        row = view.actors.row(actor)
        rows = there.get(actor, np.empty(0, np.intp))
        busy = int(told["busy"][rows].sum())
        if not view.actors["workflow"][row]:
            calls = busy + int(waiting[row])
        else:  # who has room takes what there is: what was heard of it before is over
            full = busy >= told["slots"][rows].sum()
            shared = view.lanes.where(actor=row, host=-1)
            calls = busy + (int(view.lanes["waiting"][shared].sum()) if full else 0)
        slots = float(told["slots"][rows].mean()) if len(rows) else _FIRST * calls
        starting, most = int(view.actors["starting"][row]), int(view.actors["most"][row])
        have = len(rows) + starting
        room = -1 if 0 < most <= have else max(places.values(), default=-1)
        spare = rows[view.hosts["provided"][told["host"][rows]]]
        order = np.argsort(told["busy"][spare] + told["mailbox"][spare], kind="stable")
        idlest = view.hosts.keys[told["host"][spare[order[0]]]] if len(spare) else ""
        yield Load(actor, calls, max(1.0, slots), have, starting, room, idlest)
