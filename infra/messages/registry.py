"""What hosts tell about themselves in bucket ``cb_registry``; read by stubs, siblings and operators."""

from __future__ import annotations

from typing import Any

import msgspec


class MethodInfo(msgspec.Struct, omit_defaults=True):
    """One callable method of an actor.

    Attributes:
        name: its name; ``call`` for a tool, ``run`` for a workflow.
        arguments, result: JSON schemas of the argument object and of the value.
        directives: every directive that differs from its default.
        doc: its docstring.
    """

    name: str
    arguments: dict[str, Any] = {}
    result: dict[str, Any] = {}
    directives: dict[str, Any] = {}
    doc: str = ""


class ActorInfo(msgspec.Struct, omit_defaults=True):
    """One actor: key ``actor.<name>``.

    Attributes:
        kind: ``agent``, ``tool`` or ``workflow``.
        version: hash of the code that declares it.
    """

    name: str
    kind: str
    version: str
    methods: list[MethodInfo] = []
    directives: dict[str, Any] = {}
    doc: str = ""


class InstanceInfo(msgspec.Struct, omit_defaults=True):
    """The running instance of one actor in a host.

    Attributes:
        busy, slots: handlers running (without those that wait for their own calls), and how many may.
        mailbox: calls pulled and not started.
        waiting: calls that the lane still held at the last delivery.
        rate: calls finished per second, lately.
        workflow: it drives runs of a workflow.
        overdue: calls that have waited here too long and may run elsewhere; sessions, where they move whole.
        standby: it takes no calls, since there are enough others, or what it needs is down and theirs is not.
        down: what it needs, the engine of a model, does not answer.
    """

    busy: int = 0
    slots: int = 0
    mailbox: int = 0
    waiting: int = 0
    rate: float = 0.0
    version: str = ""
    workflow: bool = False
    overdue: int = 0
    standby: bool = False
    down: bool = False


class Pulse(msgspec.Struct, omit_defaults=True):
    """A host's heartbeat: key ``host.<id>``.

    Attributes:
        host: its id; pid, node, version: of its process.
        at: unix seconds; started: of the process.
        instances: by actor.
        inflight: per ``<stream>.<consumer>`` the stream sequences of all messages it holds un-acked;
            whoever finds the host dead naks them on its behalf.
        late: seconds by which the event loop was late when this was written.
        provisioned: a controller minds its process; whichever controller leads may drain it.
        name: that it was given, and that the next one may have, too; empty: none.
    """

    host: str
    at: float
    started: float = 0.0
    pid: int = 0
    node: str = ""
    version: str = ""
    instances: dict[str, InstanceInfo] = {}
    inflight: dict[str, list[int]] = {}
    late: float = 0.0
    draining: bool = False
    provisioned: bool = False
    name: str = ""

    def serves(self, actor: str) -> bool:
        """Whether it stays, and runs an actor, for which it does not stand by and is not down."""
        info = None if self.draining else self.instances.get(actor)
        return info is not None and not (info.standby or info.down)


class Leader(msgspec.Struct):
    """Key ``controller``: the controller that leads; it renews this, and others take it when it is silent.

    Attributes:
        controller: its id, empty when it has left; epoch: counts those who have led, from 1.
        at: unix seconds.
    """

    controller: str
    epoch: int
    at: float = 0.0


class Named(msgspec.Struct):
    """Key ``name.<name>``: the host that has a name, or had it last."""

    host: str


class Takeover(msgspec.Struct):
    """Key ``takeover.<host>``: who naks a dead host's calls, so that only one does."""

    by: str
    at: float
