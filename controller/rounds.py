"""Rounds of a set of policies: whose turn it is, and what they decide together; live and in a simulation.

The first has its way. Who decides seldom has it in between, too: what it has stored is not changed by those
after it (:meth:`Held.bars`), and what it has said without storing anything, such as that a session needs no
priority, stands until its next round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from callboard.controller import loading
from callboard.controller.changes import Changes
from callboard.controller.policy import MOST_DECISIONS, Act, Held, Policy
from callboard.controller.ranks import Claims
from callboard.infra.errors import PolicyUnusable
from callboard.infra.messages.policy import Decision, PolicyState

if TYPE_CHECKING:
    from callboard.controller.view import View

Run: TypeAlias = Callable[[Policy, "View", Act], None]
"""Has a policy decide once; raises what it raises."""


class Running:
    """A policy of the set.

    Attributes:
        problem: why it does not decide; due: seconds of its next round; seen: of the view, then.
        unprovided: it wanted to start or end what nobody can; told: it was said so.
        claims: all for which it has decided in its last round, whether or not that changed anything.
        mark: the highest number of a session then; actors: of which it has changed the instances then.
    """

    def __init__(self, name: str, policy: Policy | None, problem: str = "") -> None:
        self.name = name
        self.policy = policy
        self.problem = problem
        self.due = 0.0
        self.seen = -1
        self.unprovided = self.told = False
        self.claims = Claims()
        self.mark = 0
        self.actors: frozenset[str] = frozenset()
        self.reason = loading.reason(policy) if policy is not None else ""

    @property
    def state(self) -> PolicyState:
        """How it stands."""
        state = "unusable" if self.policy is None else "disabled" if self.problem else "deciding"
        return PolicyState(self.name, state, self.problem)


class Rounds:
    """A set of policies at work.

    Args:
        view: what they look at; held: the decisions that hold.
        run: has one of them decide.
        failed: told of one that cannot be used, or has raised this.
    """

    def __init__(
        self, view: View, held: Held, run: Run, failed: Callable[[Running, Exception], None]
    ) -> None:
        self._view = view
        self._held = held
        self._run = run
        self.running: list[Running] = []
        self._failed = failed
        self.left = 0
        """Decisions that were too many for the last round."""

    def load(self, names: Sequence[str]) -> None:
        """Follow these policies from now on, made anew; one that cannot be used says why."""
        running: list[Running] = []
        for name in dict.fromkeys(names):
            try:
                running.append(Running(name, loading.load(name)))
            except PolicyUnusable as error:
                running.append(Running(name, None, str(error.fields["problem"])))
                self._failed(running[-1], error)
        self.running = running
        self._held.rank = {one.name: place for place, one in enumerate(running)}

    def decide(
        self, now: float, first: Sequence[Decision] = (), changes: Changes | None = None
    ) -> list[Decision]:
        """What the policies decide whose turn it is.

        Args:
            now: seconds that never go back.
            first: what has been decided before them in this round; changes: the instances concerned.
        """
        decided = list(first)
        self.left = 0
        due = [
            one.policy is not None and not one.problem and self._is_due(one, one.policy, now)
            for one in self.running
        ]
        if not any(due):
            return decided
        claimed, changes = Claims(), Changes(self._view, changes)
        for one, is_due in zip(self.running, due, strict=True):
            if not is_due:  # what it has said stands until its next round
                claimed.stand(one.claims, self._view.sessions, one.mark)
                changes.actors |= one.actors
                continue
            act = self._once(one, claimed, changes, MOST_DECISIONS - len(decided))
            if act is not None:
                claimed, changes = act.claimed, act.changes
                decided += act.decisions
                self.left += act.left
        return decided

    def _once(self, one: Running, claimed: Claims, changes: Changes, left: int) -> Act | None:
        """Have one policy decide; None: it has failed, and nothing of this round counts."""
        assert one.policy is not None
        act = Act(self._view, one.name, one.reason, self._held, claimed.copy(), left, changes)
        try:
            self._run(one.policy, self._view, act)
        except Exception as error:  # noqa: BLE001 - it is somebody else's code
            one.problem = f"{type(error).__name__}: {error}"
            one.claims, one.actors = Claims(), frozenset()  # what it has stored stays
            self._failed(one, error)
            return None
        one.unprovided = act.unprovided
        one.claims, one.mark = act.claimed.since(claimed), int(self._view.sessions["added"].max())
        one.actors = frozenset(act.changes.actors - changes.actors)
        return act

    def _is_due(self, one: Running, policy: Policy, now: float) -> bool:
        if now < one.due:
            return False
        seen = int(self._view.hosts["sequence"].sum())
        if not policy.every and seen == one.seen:
            return False
        one.due, one.seen = now + policy.every, seen
        return True
