"""What hosts and drivers tell on ``cb.telemetry.<source>``, a few times a second: columns, not rows.

A column of numbers is bytes: one number after the other, little-endian, so that NumPy reads it as it is.
The comment behind a field says which numbers. A column of names holds places in the report's ``names``.
"""

from __future__ import annotations

import msgspec

ENDED = ("completed", "failed", "retried")
"""How an attempt ended, by its number: with a value, an error, or an error after which it is repeated."""

MOVED = ("given_back", "passed_on", "stolen", "migrated")
"""Why a call changed its lane, by its number."""


class Made(msgspec.Struct, omit_defaults=True):
    """Futures that their maker waits for: those made since the last report, or all.

    Those that had their outcome before the report was written are left out; the host that ran them tells.

    Attributes:
        future: ids.
        sent: seconds ago, f4; below 0: it waits for other futures.
        call, session: names, u4; a session of ``""`` is the run's id. workflow: name, u4.
        lane: name, u4: ``any``, or a host's id.
        policy: epoch of the decision that chose the lane, u4; all 0: left out.
        band: u1; priority: i2; stage: u2.
        deps: of each, ids of the futures it waits for, with commas; all empty: left out.
    """

    future: list[str] = []
    sent: bytes = b""
    call: bytes = b""
    session: bytes = b""
    workflow: bytes = b""
    lane: bytes = b""
    policy: bytes = b""
    band: bytes = b""
    priority: bytes = b""
    stage: bytes = b""
    deps: list[str] = []


class Running(msgspec.Struct, omit_defaults=True):
    """Calls that are on the host: those that came or began since the last report, or all.

    Attributes:
        future: ids.
        began: seconds ago, f4; below 0: it waits in the mailbox.
        waited: seconds from being stored to its start, or until now, f4.
        call, session, workflow: names, u4, as in :class:`Made`.
        band: u1; priority: i2; stage: u2; attempt: u2.
    """

    future: list[str] = []
    began: bytes = b""
    waited: bytes = b""
    call: bytes = b""
    session: bytes = b""
    workflow: bytes = b""
    band: bytes = b""
    priority: bytes = b""
    stage: bytes = b""
    attempt: bytes = b""


class Ended(msgspec.Struct, omit_defaults=True):
    """Attempts that have ended on the host. What many of them have in common stands there once: as a kind.

    Attributes:
        future: ids.
        kind: place in the columns of kinds, u4.
        ago: seconds before the report, f4; waited, took: seconds, f4.
        size: bytes of the arguments, u4.
        tokens: that a model has made, u4; all 0: left out.
        call, session: of kinds: names, u4, as in :class:`Made`. how: u1, see :data:`ENDED`.
        band: u1; priority: i2; stage: u2; attempt: u2.
        ranked: 1: a decision gave the priority, u1; all 0: left out.
    """

    future: list[str] = []
    kind: bytes = b""
    ago: bytes = b""
    waited: bytes = b""
    took: bytes = b""
    size: bytes = b""
    tokens: bytes = b""
    call: bytes = b""
    session: bytes = b""
    how: bytes = b""
    band: bytes = b""
    priority: bytes = b""
    stage: bytes = b""
    attempt: bytes = b""
    ranked: bytes = b""


class MovedCalls(msgspec.Struct, omit_defaults=True):
    """Calls that have left the host for another lane.

    Attributes:
        future: ids.
        lane: name, u4: where to; why: u1, see :data:`MOVED`.
    """

    future: list[str] = []
    lane: bytes = b""
    why: bytes = b""


class MovedSessions(msgspec.Struct, omit_defaults=True):
    """Sessions that the host held and another one holds now.

    Attributes:
        actor, session, host: names, u4; host: who holds it. why: u1, see :data:`MOVED`.
    """

    actor: bytes = b""
    session: bytes = b""
    host: bytes = b""
    why: bytes = b""


class RunsBegun(msgspec.Struct, omit_defaults=True):
    """Runs that the driver has taken since the last report, or all that it drives.

    Attributes:
        run: ids.
        ago: seconds since the request was stored, f4.
        workflow, session: names, u4, as in :class:`Made`; priority: i2.
        deadline: seconds that are left from the report on, f4; 0: it has none.
        key: that they are charged to, names, u4; all empty: left out.
    """

    run: list[str] = []
    ago: bytes = b""
    workflow: bytes = b""
    session: bytes = b""
    priority: bytes = b""
    deadline: bytes = b""
    key: bytes = b""


class RunsEnded(msgspec.Struct, omit_defaults=True):
    """Runs that the driver drives no more.

    Attributes:
        run: ids.
        took: seconds from the request to the end, f4; calls: made, u4.
        workflow: name, u4.
        status: name, u4: as in ``cb_runs``, or ``left``: another driver goes on, or nobody does for now.
        key: as in :class:`RunsBegun`.
    """

    run: list[str] = []
    took: bytes = b""
    calls: bytes = b""
    workflow: bytes = b""
    status: bytes = b""
    key: bytes = b""


class Queues(msgspec.Struct, omit_defaults=True):
    """The instances of the host: those that changed since the last report, or all.

    Attributes:
        actor: names of actors, u4; version: of their code, names, u4.
        busy, slots, mailbox: u4, as in the heartbeat; of a workflow the runs that are driven.
        band_0, band_1, band_2: calls of each band that the shared lane held when it was last heard of, u4;
            of a workflow band_1: requests that no driver had taken.
        mailbox_0, mailbox_1, mailbox_2: calls of each band in the mailbox, u4; all 0: left out. The host
            keeps emptying its own lane into it.
        standby: u1: 1 while there are more hosts than the actor may have instances.
        workflow: u1: 1 if it drives runs.
        least, most: ``min_instances`` and ``max_instances``, u4, 0: none; all 0: left out.
        needs: ``resources``, names, u4, as ``cpu=2,gpu=1``; all empty: left out.
    """

    actor: bytes = b""
    version: bytes = b""
    busy: bytes = b""
    slots: bytes = b""
    mailbox: bytes = b""
    band_0: bytes = b""
    band_1: bytes = b""
    band_2: bytes = b""
    mailbox_0: bytes = b""
    mailbox_1: bytes = b""
    mailbox_2: bytes = b""
    standby: bytes = b""
    workflow: bytes = b""
    least: bytes = b""
    most: bytes = b""
    needs: bytes = b""


SILENT, ANSWERS, DOWN = range(3)
"""What an engine may do."""


class Engines(msgspec.Struct, omit_defaults=True):
    """The engines behind instances of models, as they tell themselves: those that changed, or all.

    Attributes:
        actor: names of models, u4.
        answers: u1: 1; 0: it does not tell any more; 2: it is down. Then all its other columns are 0.
        running, waiting: requests in its batch, and before it, u4; others may have sent some of them.
        kv: share of its KV cache in use, f4, 0 to 1.
        queried, hit: tokens of prompts that were looked for in its prefix cache, and that were there, u8.
        prompt, generated: tokens read and made, u8; preempted: requests put back from the batch, u8.
            Like those of the cache they count since the engine was started.
    """

    actor: bytes = b""
    answers: bytes = b""
    running: bytes = b""
    waiting: bytes = b""
    kv: bytes = b""
    queried: bytes = b""
    hit: bytes = b""
    prompt: bytes = b""
    generated: bytes = b""
    preempted: bytes = b""


class Machine(msgspec.Struct, omit_defaults=True):
    """The process.

    Attributes:
        cpu: cores in use since the last report; memory: resident bytes.
        late: seconds by which the event loop was late.
        version: of Callboard; node: name of the machine.
        startup: seconds from the start of the process until the host took calls; 0: not known, since the
            process does other things, too.
    """

    cpu: float = 0.0
    memory: int = 0
    late: float = 0.0
    version: str = ""
    node: str = ""
    startup: float = 0.0


class Report(msgspec.Struct, omit_defaults=True):
    """What a source tells at one time.

    Attributes:
        source: a host's id; sequence: counts its reports, from 1.
        at: unix seconds.
        every: seconds after which the next report comes at the latest, if anything has changed.
        part: of a whole state, from 1; 0: changes only. More changes may come between two parts.
        last: the last part: what this source had told before and has not told again is no more.
        leaving: the source takes nothing new.
        names: what columns of names refer to.
        closed: ids of futures that their maker waits for no more; gone: of calls that are on the host no more
            without having ended there.
    """

    source: str
    sequence: int
    at: float
    every: float = 0.0
    part: int = 0
    last: bool = False
    leaving: bool = False
    names: list[str] = []
    made: Made | None = None
    running: Running | None = None
    ended: Ended | None = None
    moved: MovedCalls | None = None
    sessions_moved: MovedSessions | None = None
    runs_begun: RunsBegun | None = None
    runs_ended: RunsEnded | None = None
    queues: Queues | None = None
    engines: Engines | None = None
    machine: Machine | None = None
    closed: list[str] = []
    gone: list[str] = []
