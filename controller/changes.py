"""Which instances may be ended and started in one round.

Never fewer than ``min_instances``, never more than ``max_instances`` or than there is room for.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from callboard.infra import subjects

if TYPE_CHECKING:
    from callboard.controller.view import View


class Changes:
    """What one policy ends and starts in one round; nothing of it is carried out yet.

    Args:
        view: what there is.
        before: what earlier policies do in this round; it leaves their actors alone, and their room.

    Attributes:
        actors: of which instances are ended or started, by earlier policies or this one; begun: how many are
            started.
    """

    def __init__(self, view: View, before: Changes | None = None) -> None:
        self._view = view
        self._taken: frozenset[str] = frozenset() if before is None else frozenset(before.actors)
        self._killed: set[str] = set()
        self._ended: Counter[int] = Counter()
        self._started: Counter[str] = Counter()
        self.actors: set[str] = set(self._taken)
        self.begun: int = 0 if before is None else before.begun

    def kill(self, host: str) -> bool:
        """Count a host as ended; False: it may not be."""
        view = self._view
        if host in self._killed or host not in view.hosts or not subjects.is_token(host):
            return False
        row = view.hosts.row(host)
        here = np.unique(view.instances["actor"][view.instances.where(host=row)]).tolist()
        names = {view.actors.keys[actor] for actor in here}
        if not view.hosts["provided"][row] or not usable(view, row) or names & self._taken:
            return False
        if any(running(view, actor) - self._ended[actor] <= view.actors["least"][actor] for actor in here):
            return False
        self._killed.add(host)
        self._ended.update(here)
        self.actors |= names
        return True

    def provision(self, actor: str, where: str) -> str:
        """Count an instance as started; gives its place; empty: there may be no more."""
        view = self._view
        places = view.room.get(actor, {})
        free = [place for place, room in places.items() if room > self.begun]
        chosen = next((place for place in free if where in {"", place}), "")
        if not chosen or actor in self._taken:
            return ""
        row = view.actors.row(actor)
        most = int(view.actors["most"][row])
        if most and running(view, row) + int(view.actors["starting"][row]) + self._started[actor] >= most:
            return ""
        self._started[actor] += 1
        self.begun += 1
        self.actors.add(actor)
        return chosen


def usable(view: View, host: int) -> bool:
    """Whether a host, by its row, goes on taking calls."""
    return not (view.hosts["draining"][host] or view.hosts["killed"][host])


def running(view: View, actor: int) -> int:
    """How many hosts run an actor, by its row; without those that are about to end, or still start."""
    hosts = view.instances["host"][view.instances.where(actor=actor)]
    return int(np.count_nonzero(~view.hosts["draining"][hosts] & ~view.hosts["killed"][hosts]))
