"""Policies at work: each when it is its turn, limited in time and in decisions, off when it has failed."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from callboard.controller.decisions import Decisions
from callboard.controller.limited import ROUND, within
from callboard.controller.policy import MOST_DECISIONS
from callboard.controller.rounds import Rounds, Running
from callboard.infra import log
from callboard.infra.errors import CallboardError, Fenced
from callboard.infra.messages.policy import Admission, Decision, PolicyState

if TYPE_CHECKING:
    from callboard.actors.node import Node
    from callboard.controller.provisioning.fleet import Fleet
    from callboard.controller.view import View

GONE = 60.0
"""Seconds after which decisions for a session of which nothing is seen are cleared."""
TIDY = "callboard"
"""The policy of what is cleared because nobody decides it any more."""
_TICK = 0.02
_AFTER_SURPRISE = 1.0
_TIDY_EVERY = 1.0
_LOOKED_AT = MOST_DECISIONS
"""Entries that are looked at in one round: not more of them can be cleared."""


class Took(NamedTuple):
    """What a round took in which something was decided.

    Attributes:
        began: seconds of the monotonic clock; deciding, storing: seconds; decisions: how many.
    """

    began: float
    deciding: float
    storing: float
    decisions: int


class Deciders:
    """The policies of a controller; they decide while it leads.

    Args:
        node: of this process, open; controller: its id; view: what they look at.
        names: policies to follow as long as nobody has chosen others for all controllers.
        complete: whether the view is.
        limit: seconds that a policy has for one round.
        fleet: the hosts that may be started and ended; None: there is no provisioner.
        outbid: told of the epoch of another controller that decides, while this one believes to lead.

    Attributes:
        on_decided: told of each round whose decisions are stored; None: nobody is.
    """

    def __init__(
        self,
        node: Node,
        controller: str,
        view: View,
        names: Sequence[str] = (),
        complete: Callable[[], bool] = lambda: True,
        limit: float = ROUND,
        fleet: Fleet | None = None,
        outbid: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._node = node
        self._view = view
        self._given = list(names) or None
        self._names = self._given
        self._chosen = False
        self._complete = complete
        self._fleet = fleet
        self._outbid = outbid
        self.on_decided: Callable[[Took], None] | None = None
        self._changed = True
        self._tidied = 0.0
        self._untidied: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self._aside: set[asyncio.Task[None]] = set()
        carry = [] if fleet is None else [fleet.begin]
        self.decisions = Decisions(node, controller, self._choose, self._spawn, *carry)
        self._rounds = Rounds(view, self.decisions.held, functools.partial(within, limit), self._failed)
        self._log = log.get("policies").bind(controller=controller)

    async def start(self) -> None:
        """Follow what is decided, and which policies are chosen. Idempotent."""
        await self.decisions.start()

    def stop(self) -> None:
        """Idempotent."""
        self.lead_no_more()
        self.decisions.stop()
        for task in self._aside:
            task.cancel()

    def lead(self, term: int) -> None:
        """Decide from now on.

        Args:
            term: epoch of the lease.
        """
        self._changed = True
        self._task = self._node.loop.create_task(self._lead(term))

    def lead_no_more(self) -> None:
        """Decide no more. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    @property
    def states(self) -> list[PolicyState]:
        """How each policy of the set stands."""
        return [one.state for one in self._rounds.running]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._node.loop.create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    def _choose(self, names: list[str] | None) -> None:
        self._chosen = names is not None
        if names is None and self._names is not None:  # who was started with none clears what others decided
            names = self._given or []
        self._names = names
        self._changed = True

    # -- deciding ------------------------------------------------------------------------------------

    async def _lead(self, term: int) -> None:
        begun = False
        while True:
            try:
                if not begun:
                    await self.decisions.lead(term)
                    begun = True
                await self._once()
            except Fenced as error:
                if begun:  # by another controller, or by somebody who is none
                    begun = False
                    self._log.warning("fenced", term=term, reason=str(error))
                    continue
                epoch = error.fields.get("epoch")
                if epoch is not None:
                    self._log.warning("decides_no_more", term=term, reason=str(error))
                    self._outbid(epoch)
                    return
            except CallboardError as error:  # what was not stored is decided again
                self._log.warning("not_decided", error=str(error))
            except Exception as error:  # noqa: BLE001 - a surprise of one policy must not end all deciding
                self._log.error("not_decided", error=f"{type(error).__name__}: {error}", exc_info=error)
                await asyncio.sleep(_AFTER_SURPRISE)
            await asyncio.sleep(_TICK)

    async def _once(self) -> None:
        if self._changed:
            self._changed = False
            await asyncio.to_thread(self._rounds.load, self._names or [])
            by = "callboard policy" if self._chosen else "--policy"
            self._log.info("policies", policies=[one.name for one in self._rounds.running], by=by)
            if self._given and self._names != self._given:
                fix = "'callboard policy set' or 'clear' counts for all; 'callboard policy reset' ends it"
                self._log.warning("policies_not_followed", policies=self._given, fix=fix)
        if not self._complete():
            return
        began = time.monotonic()
        decisions = [*self._tidy(), *self._round()]
        decided = time.monotonic()
        await self.decisions.tell(self.states)
        if decisions:
            epoch = await self.decisions.write(decisions)
            took = Took(began, decided - began, time.monotonic() - decided, len(decisions))
            seconds = {"deciding": round(took.deciding, 4), "storing": round(took.storing, 4)}
            self._log.debug("decided", epoch=epoch, decisions=len(decisions), **seconds)
            if self.on_decided is not None:
                self.on_decided(took)

    def _failed(self, one: Running, error: Exception) -> None:
        if one.policy is None:
            self._log.error("policy_unusable", policy=one.name, error=str(error))
        else:
            self._log.error("policy_disabled", policy=one.name, reason=one.problem, exc_info=error)

    def _round(self) -> list[Decision]:
        """What is needed to keep ``min_instances``, and what the policies decide whose turn it is."""
        kept = self._fleet.keep() if self._fleet is not None else None
        first = [] if kept is None else kept.decisions
        decided = self._rounds.decide(time.monotonic(), first, None if kept is None else kept.changes)
        if self._rounds.left:
            self._log.info("decisions_left", count=self._rounds.left)
        for one in self._rounds.running:
            if one.unprovided and self._fleet is None and not one.told:
                one.told = True
                fix = "start controllers with --provision, see 'callboard controller --help'"
                self._log.warning("nothing_provisions", policy=one.name, fix=fix)
        return decided

    def _tidy(self) -> Iterator[Decision]:
        """Clear what controllers have decided and nobody decides any more; a part of what holds at a time."""
        now = time.monotonic()
        if self._names is None:
            return
        held = self.decisions.held.entries
        if not self._untidied and now - self._tidied >= _TIDY_EVERY:
            self._tidied, self._untidied = now, list(held)
        looked = self._untidied[-_LOOKED_AT:]
        del self._untidied[-_LOOKED_AT:]
        names = {one.name for one in self._rounds.running}
        for key in looked:
            entry = held.get(key)
            if entry is None or not entry.term:
                continue
            session = "" if isinstance(entry, Admission) else entry.session
            over = bool(session) and session not in self._view.sessions
            if entry.policy not in names:
                reason = f"policy {entry.policy} is not followed any more"
            elif over and time.time() - entry.at > GONE:
                reason = "nothing of the session is open"
            else:
                continue
            yield Decision("clear", key, policy=TIDY, reason=reason)
