"""What a policy is: a class that looks at the view and decides, by the primitives that it is given.

The primitives are those of NALAR. A decision is stored when it changes something, so a policy says each time
what it wants, and need not remember what it has said.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from callboard.controller.changes import Changes
from callboard.controller.ranks import Claims, Column, Values
from callboard.infra import subjects
from callboard.infra.messages.policy import Admission, Decision, Priority, Route

if TYPE_CHECKING:
    from callboard.controller.table import Rows
    from callboard.controller.view import View

MOST_DECISIONS = 1000
"""Decisions of all policies in one round that change anything; the others have to wait for the next."""
MOST_PRIORITY = 9
"""Priorities are taken between minus this and this, as mailboxes do."""
Entry: TypeAlias = Route | Priority | Admission
"""What holds, as it stands in the bucket of decisions."""
_SAME = 1e-3
_LONGEST_REASON = 1000
_read = msgspec.msgpack.Decoder(Decision).decode


class Policy:
    """Derive from this, and say in ``decide`` what is to be done.

    The first line of the class's text is the reason of decisions that have none of their own.

    Attributes:
        every: seconds between two rounds; 0: whenever hosts have reported something, at most 50 times a
            second.
    """

    every: float = 0.25

    def decide(self, view: View, act: Act) -> None:
        """Look at the view, and act. Called on the controller that leads, once in each round.

        It must not change the view, keep what is in it, or wait for anything: it has half a second.
        """
        raise NotImplementedError


def calls(view: View, *states: int) -> dict[str, Rows]:
    """The open calls of each actor, rows of futures; those in one of these states only, if any is named."""
    futures = view.futures
    rows = np.flatnonzero(futures["alive"] & (futures["session"] >= 0))
    if states:
        rows = rows[np.isin(futures["state"][rows], states)]
    rows = rows[np.argsort(futures["actor"][rows], kind="stable")]
    actors, first = np.unique(futures["actor"][rows], return_index=True)
    names = map(view.actors.keys.__getitem__, actors.tolist())
    return dict(zip(names, np.split(rows, first[1:]), strict=False))


def instances(view: View, *, workflows: bool = False) -> Iterator[tuple[str, Rows]]:
    """Each actor that is no workflow, or each workflow, with the rows of its instances that take calls."""
    told = view.instances
    leaves = view.hosts["draining"] | view.hosts["killed"]
    there = told["alive"] & ~told["standby"] & (told["workflow"] == workflows) & ~leaves[told["host"]]
    for actor in np.unique(told["actor"][there]).tolist():
        yield view.actors.keys[actor], np.flatnonzero(there & (told["actor"] == actor))


class Held(msgspec.Struct):
    """The decisions that hold, whoever made them, by their key in the bucket.

    Attributes:
        rank: place of each policy in the set: of two that want the same, the first has its way.
        moving: sessions that move now, or have just failed to.
        values: the priorities among them, by session and actor; columns: by actor, see :meth:`ranks`.
        homes: by actor and session, the host of routes that name one.
    """

    entries: dict[str, Entry] = msgspec.field(default_factory=dict)
    rank: Mapping[str, int] = msgspec.field(default_factory=dict)
    moving: Collection[str] = ()
    values: dict[tuple[str, str], int] = msgspec.field(default_factory=dict)
    columns: dict[str, Column] = msgspec.field(default_factory=dict)
    homes: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)

    def put(self, key: str, entry: Entry) -> None:
        """It holds from now on."""
        self.drop(key)
        self.entries[key] = entry
        if isinstance(entry, Priority):
            self.values[entry.session, entry.actor] = entry.value
            self._changed(entry)
        elif isinstance(entry, Route) and entry.session and len(entry.hosts) == 1:
            (self.homes.setdefault(entry.actor, {})[entry.session],) = entry.hosts

    def drop(self, key: str) -> None:
        """Nothing holds there any more."""
        entry = self.entries.pop(key, None)
        if isinstance(entry, Priority):
            self.values.pop((entry.session, entry.actor), None)
            self._changed(entry)
        elif isinstance(entry, Route) and entry.actor in self.homes:
            self.homes[entry.actor].pop(entry.session, None)

    def _changed(self, entry: Priority) -> None:
        column = self.columns.get(entry.actor)
        if column is not None:
            column.changed.add(entry.session)

    def ranks(self, view: View, actor: str) -> Values:
        """The priorities at an actor, or at all, by the rows of the view's sessions; 0: none."""
        return self.columns.setdefault(actor, Column(actor)).of(view.sessions, self.values)

    def bars(self, key: str, policy: str) -> bool:
        """Whether what holds there is not this policy's to change: a person's, or an earlier policy's."""
        known = self.entries.get(key)
        if known is None:
            return False
        if not known.term:
            return True
        mine = self.rank.get(policy, 0)
        return self.rank.get(known.policy, mine) < mine


class Act:
    """What a policy can do, in one round; it collects decisions.

    Args:
        view: which instances there are.
        policy: its name; reason: of decisions without one.
        held: the decisions that hold.
        claimed: that for which a policy has decided in this round, whether or not that changes anything.
        most: decisions that may change something.
        before: instances that earlier policies have ended and started in this round.

    Attributes:
        decisions: what is to be changed; claimed: all for which something was decided.
        left: how many decisions were too many for this round.
        changes: the instances that are ended and started.
        unprovided: some were to be started or ended, and there is no room anywhere, or no provisioner.
    """

    def __init__(
        self,
        view: View,
        policy: str,
        reason: str = "",
        held: Held | None = None,
        claimed: Claims | None = None,
        most: int = MOST_DECISIONS,
        before: Changes | None = None,
    ) -> None:
        self._view = view
        self._policy = policy
        self._reason = reason
        self._held = Held() if held is None else held
        self.claimed = Claims() if claimed is None else claimed
        self._most = most
        self.decisions: list[Decision] = []
        self.left = 0
        self.changes = Changes(view, before)
        self.unprovided = False
        self._by_session: tuple[Rows, Rows] | None = None

    @overload
    def route(self, session: str, actor: str, instance: str, /, *, reason: str = "") -> None: ...

    @overload
    def route(
        self,
        actor: str,
        instances: Sequence[str],
        weights: Sequence[float],
        /,
        *,
        by: str = "",
        reason: str = "",
    ) -> None: ...

    def route(
        self,
        first: str,
        second: str | Sequence[str],
        third: str | Sequence[float],
        /,
        *,
        by: str = "",
        reason: str = "",
    ) -> None:
        """Have calls go to instances: those of a session to one, or an actor's to several by weight.

        An instance is named by its host. What is not there is passed over. An empty instance, or none of
        them, ends the route.

        Args:
            by: ``prefix``: of a model's instances each call goes to the one whose engine holds most of its
                prompt; weights only say which of them there are.
            reason: why, in words.
        """
        if isinstance(second, str):
            hosts = {str(third): 1.0} if third else {}
            token = _token(first)
            if token and not self.claimed.has_route(self._view.sessions, first, second):
                self._route(subjects.session_route(second, token), second, hosts, "", reason)
        else:
            weights = [float(weight) for weight in third]
            hosts = dict(zip(second, weights, strict=True))
            self._route(subjects.route(first), first, hosts, by, reason)

    def set_routes(self, sessions: Rows, actor: str, hosts: Rows, *, reason: str = "") -> None:
        """Route many sessions of the view at an actor at once: it costs little where nothing changes.

        Args:
            sessions: their rows, each once; hosts: of each its own, rows of hosts.
            reason: why, in words.
        """
        view, homes = self._view, self._held.homes.get(actor, {})
        names = list(map(view.sessions.keys.__getitem__, sessions.tolist()))
        wanted = list(map(view.hosts.keys.__getitem__, hosts.tolist()))
        same = np.fromiter(map(operator.eq, map(homes.get, names), wanted), np.bool_, len(names))
        there = self._are_there(actor)[hosts]
        changing = np.flatnonzero(there & ~same & ~self.claimed.routed(actor, sessions))
        self.claimed.add_routes(actor, sessions[there & same])
        for done, place in enumerate(changing.tolist()):
            if len(self.decisions) >= self._most:
                self.left += len(changing) - done
                break
            self.route(names[place], actor, wanted[place], reason=reason)

    def set_priority(self, session: str, value: int, actor: str = "", *, reason: str = "") -> None:
        """Make the calls of a session more urgent, or less; those that wait already, too.

        Args:
            value: above 0 is urgent, below 0 can wait; 0: as urgent as their run says.
            actor: only at this one.
            reason: why, in words.
        """
        value = max(-MOST_PRIORITY, min(MOST_PRIORITY, int(value)))
        sessions = self._view.sessions
        if self.claimed.has_rank(sessions, session, actor):
            return
        same = self._held.values.get((session, actor), 0) == value  # nearly always, and for every session
        if same or self._rank(session, value, actor, reason):
            self.claimed.add_rank(sessions, session, actor)

    def set_priorities(
        self,
        sessions: Rows,
        values: NDArray[Any],
        actor: str = "",
        *,
        reason: str | Callable[[int], str] = "",
    ) -> None:
        """The same for many sessions of the view at once: where nothing changes it costs next to nothing.

        Args:
            sessions: their rows, each once; values: of each its own.
            actor: only at this one.
            reason: why, in words; or what makes it of a value, as it was given.
        """
        view, held = self._view, self._held.ranks(self._view, actor)
        claimed = self.claimed.ranked(view.sessions, actor)
        taken = np.clip(values.astype(np.int64), -MOST_PRIORITY, MOST_PRIORITY).astype(np.int16)
        same = held[sessions] == taken
        changing = np.flatnonzero(~(same | claimed[sessions]))
        claimed[sessions[same]] = True
        for done, place in enumerate(changing.tolist()):
            if len(self.decisions) >= self._most:
                self.left += len(changing) - done
                break
            row, why = sessions[place], reason if isinstance(reason, str) else reason(int(values[place]))
            claimed[row] = self._rank(view.sessions.keys[row], int(taken[place]), actor, why)

    def migrate(self, session: str, source: str, destination: str, /, *, reason: str = "") -> None:
        """Move a session from one instance to another, with what waits of it, at each actor it is at there.

        Only agents with managed state have sessions that can be moved. One that is under way, or has just
        failed, is not asked for again.

        Args:
            reason: why, in words.
        """
        view, token = self._view, _token(session)
        if not token or session not in view.sessions or source not in view.hosts or source == destination:
            return
        if len(self.decisions) >= self._most:
            self.left += 1
            return
        for actor in self._actors_at(view.sessions.row(session), view.hosts.row(source)):
            key, route = subjects.state(actor, token), subjects.session_route(actor, token)
            if route in self.claimed or self.claimed.has_route(view.sessions, session, actor):
                continue
            routed = self._held.entries.get(route)
            elsewhere = not isinstance(routed, Route) or destination not in routed.hosts
            if not self._is_there(actor, destination) or (elsewhere and self._held.bars(route, self._policy)):
                continue
            decision = Decision("migrate", key, {destination: 1.0}, source, reason=reason)
            if self._decide(decision, same=key in self._held.moving):
                self.claimed.add(route)

    def admit(self, workflow: str, rate: float | None, /, *, reason: str = "") -> None:
        """Have drivers accept so many requests of a workflow a second, all together; the others wait.

        Args:
            rate: requests a second; 0: none; None: as many as they can.
            reason: why, in words.

        Raises:
            ValueError: the rate is none.
        """
        rate = None if rate is None else float(rate)  # a number out of a column, too
        if rate is not None and not 0 <= rate < math.inf:
            raise ValueError(f"a rate is 0 or more, or None, not {rate}")
        if not subjects.is_token(workflow):
            return
        key = subjects.admission(workflow)
        known = self._held.entries.get(key)
        same = known is None
        if rate is not None:
            same = isinstance(known, Admission) and abs(known.rate - rate) <= _SAME * rate
        what = "clear" if rate is None else "admit"
        self._decide(Decision(what, key, rate=rate or 0.0, reason=reason), same=same)

    def kill(self, instance: str, /, *, reason: str = "") -> None:
        """End an instance: its host takes nothing new, gives back what waits, finishes what runs, and ends.

        An instance is named by its host, and all that run in that host end with it. Passed over is a host
        that the leading controller's provisioner does not run, and one without which an actor in it would
        have fewer instances than its ``min_instances``.

        Args:
            reason: why, in words.
        """
        self.unprovided |= not any(map(any, map(dict.values, self._view.room.values())))
        if self._has_room() and self.changes.kill(instance):
            self._take(Decision("kill", subjects.registry(f"host.{instance}"), reason=reason))

    def provision(self, actor: str, where: str = "", /, *, reason: str = "") -> None:
        """Start one more instance of an actor, in a host of its own.

        Passed over is what the leading controller's provisioner cannot start, or has no room for, and what
        would be above ``max_instances``; instances that still start count.

        Args:
            where: a place of the provisioner: a machine, a container engine, a deployment; empty: the first
                that has room.
            reason: why, in words.
        """
        self.unprovided |= not any(map(any, map(dict.values, self._view.room.values())))
        if self._has_room() and (place := self.changes.provision(actor, where)):
            self._take(Decision("provision", subjects.registry(f"actor.{actor}"), reason=reason, where=place))

    # -- collecting ----------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Whether one more decision may be taken."""
        if len(self.decisions) < self._most:
            return True
        self.left += 1
        return False

    def _take(self, decision: Decision) -> None:
        decision.policy = self._policy
        decision.reason = str(decision.reason or self._reason)[:_LONGEST_REASON]
        _read(msgspec.msgpack.encode(decision))  # what nobody could read ends its policy
        self.decisions.append(decision)

    def _rank(self, session: str, value: int, actor: str, reason: str) -> bool:
        """Give a session another priority, if it is this policy's to decide; whether it was."""
        token = _token(session)
        if not token or (actor and not subjects.is_token(actor)):
            return False
        key = subjects.actor_priority(token, actor) if actor else subjects.priority(token)
        what = "priority" if value else "clear"
        return self._decide(Decision(what, key, value=value, reason=reason), same=False)

    def _route(self, key: str, actor: str, hosts: dict[str, float], by: str, reason: str) -> None:
        there = {
            host: weight
            for host, weight in hosts.items()
            if 0 < weight < math.inf and self._is_there(actor, host)
        }
        if (hosts and not there) or not subjects.is_token(actor):
            return
        known = self._held.entries.get(key)
        if there:
            same = isinstance(known, Route) and known.by == by and _alike(known.hosts, there)
        else:
            same = known is None
        self._decide(Decision("route" if there else "clear", key, there, by=by, reason=reason), same=same)

    def _actors_at(self, session: int, host: int) -> list[str]:
        """Where a session has calls on a host."""
        futures = self._view.futures
        if self._by_session is None:  # once, for all sessions: there may be a thousand to move
            rows = np.flatnonzero(futures["alive"] & (futures["executor"] >= 0))
            rows = rows[np.argsort(futures["session"][rows], kind="stable")]
            self._by_session = rows, futures["session"][rows].astype(np.int64)
        rows, sessions = self._by_session
        rows = rows[slice(*np.searchsorted(sessions, (session, session + 1)))]
        found = np.unique(futures["actor"][rows[futures["executor"][rows] == host]])
        return [self._view.actors.keys[actor] for actor in found.tolist()]

    def _is_there(self, actor: str, host: str) -> bool:
        view = self._view
        usable = subjects.is_token(actor) and subjects.is_token(host)  # anybody may tell of others
        if not usable or f"{actor}@{host}" not in view.instances:
            return False
        instance = view.instances.row(f"{actor}@{host}")
        row = view.instances["host"][instance]
        leaves = view.hosts["draining"][row] or view.hosts["killed"][row]
        return not (leaves or view.instances["standby"][instance])

    def _are_there(self, actor: str) -> NDArray[np.bool_]:
        """The same of all hosts, by row; their names have yet to be looked at."""
        view, told = self._view, self._view.instances
        found = np.zeros(len(view.hosts.keys), np.bool_)
        if actor in view.actors:
            rows = told.where(actor=view.actors.row(actor), standby=False)
            found[told["host"][rows]] = True
        found[view.hosts["draining"] | view.hosts["killed"]] = False
        return found

    def _decide(self, decision: Decision, *, same: bool) -> bool:
        """Take a decision, if it is this policy's to make; whether it was."""
        key = decision.key
        if key in self.claimed or self._held.bars(key, self._policy):
            return False
        if not same and not self._has_room():
            return False
        self.claimed.add(key)
        if not same:
            self._take(decision)
        return True


def _token(session: str) -> str:
    """A session in a subject; empty: it fits none, so that nothing can be decided for it."""
    try:
        return subjects.session_token(session)
    except subjects.NameInvalid:
        return ""


def _alike(some: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Whether two routes spread calls alike."""
    if some.keys() != others.keys():
        return False
    one, other = sum(some.values()), sum(others.values())
    return all(abs(some[host] / one - others[host] / other) < _SAME for host in some)
