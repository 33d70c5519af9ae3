"""What is kept in bucket ``cb_policy``: decisions; read by every process that makes calls."""

from __future__ import annotations

import msgspec


class Route(msgspec.Struct, omit_defaults=True):
    """Where calls of an actor go, or those of one session at it.

    Attributes:
        actor: whose calls.
        hosts: weights by host; calls are spread as they say.
        session: whose calls only; empty: all sessions'.
        by: ``prefix``: each call goes to the host whose engine holds most of its prompt; empty: by weight.
        epoch: of the decision; of two for the same calls the greater counts.
        policy: who decided; reason: why, in words.
        at: unix seconds of the decision; until: when it ends, 0: never.
        term: epoch of the lease of the controller that has written it; 0: no controller has.
    """

    actor: str
    hosts: dict[str, float]
    session: str = ""
    epoch: int = 0
    policy: str = ""
    reason: str = ""
    at: float = 0.0
    until: float = 0.0
    term: int = 0
    by: str = ""


class Priority(msgspec.Struct, omit_defaults=True):
    """How urgent calls of a session are, whatever their run or their code says.

    Attributes:
        session: whose calls; actor: only those at it; empty: at all that have no entry of their own.
        value: above 0 is urgent, below 0 can wait.
        epoch, policy, reason, at, term: as in a Route.
    """

    session: str
    value: int
    actor: str = ""
    epoch: int = 0
    policy: str = ""
    reason: str = ""
    at: float = 0.0
    term: int = 0


class Admission(msgspec.Struct, omit_defaults=True):
    """How many requests of a workflow are accepted; the others wait.

    Attributes:
        workflow: whose requests.
        rate: requests a second, of all drivers together; 0: none.
        epoch, policy, reason, at, term: as in a Route.
    """

    workflow: str
    rate: float
    epoch: int = 0
    policy: str = ""
    reason: str = ""
    at: float = 0.0
    term: int = 0


class Decision(msgspec.Struct, omit_defaults=True):
    """What a policy has decided.

    Attributes:
        what: ``route``, ``priority``, ``admit``, ``clear``, which takes such an entry away, ``migrate``,
            ``kill`` or ``provision``.
        key: subject of the entry; of a migration that of the session's state, of a kill that of the host's
            heartbeat, of a provision that of the actor's announcement.
        hosts, by: of a route; hosts also the one to which a session moves; source: where it moves from.
        value: of a priority; rate: of requests that are accepted, a second; where: the place of a provision.
        policy: who decided; reason: why, in words.
    """

    what: str
    key: str
    hosts: dict[str, float] = {}
    source: str = ""
    value: int = 0
    policy: str = ""
    reason: str = ""
    rate: float = 0.0
    where: str = ""
    by: str = ""


class Round(msgspec.Struct, omit_defaults=True):
    """What was decided at one time.

    Attributes:
        epoch: of all its decisions; term, controller: who has written it.
        at: unix seconds.
    """

    epoch: int
    term: int
    controller: str
    at: float
    decisions: list[Decision] = []


class Policies(msgspec.Struct, omit_defaults=True):
    """The policies that controllers are to follow, by name or file; the first goes before the others."""

    names: list[str] = []


class PolicyState(msgspec.Struct, omit_defaults=True):
    """A policy, and how it stands.

    Attributes:
        state: ``deciding``, ``disabled`` (it has failed) or ``unusable`` (it cannot be loaded).
        problem: why it does not decide.
    """

    name: str
    state: str
    problem: str = ""


class Deciding(msgspec.Struct, omit_defaults=True):
    """The policies of the controller that leads."""

    controller: str
    term: int
    policies: list[PolicyState] = []
    at: float = 0.0
