"""What hosts are told on ``cb.control.<host>`` (or ``cb.control.all``), and what they answer."""

from __future__ import annotations

import msgspec

from callboard.infra.messages.run import Awaited, ErrorInfo
from callboard.infra.messages.tokens import Tokens


class Cancel(msgspec.Struct, tag="cancel", omit_defaults=True):
    """Stop every call of the run whose future id is, or descends from, one of ``futures``.

    Attributes:
        run: the run; futures: ids, or nothing for all of the run.
        reason: told to the handlers' caller.
    """

    run: str
    futures: list[str] = []
    reason: str = ""


class Taken(msgspec.Struct, tag="taken"):
    """Another driver has this run from this epoch on; whoever drove it may stop."""

    run: str
    epoch: int


class HoldsQuery(msgspec.Struct, tag="holds"):
    """Which messages of this consumer do you hold un-acked? Answered with :class:`Holds`."""

    stream: str
    consumer: str


class CallsQuery(msgspec.Struct, tag="calls"):
    """Which of these calls, by future id, do you have? Answered with :class:`Calls`."""

    futures: list[str]


class RunQuery(msgspec.Struct, tag="run"):
    """Which calls of this run do you have? Answered with :class:`RunCalls` by hosts that have any."""

    run: str


class SaidQuery(msgspec.Struct, tag="said"):
    """What have your models said so far in this run? Answered with :class:`Said` where one speaks."""

    run: str


class Drain(msgspec.Struct, tag="drain", omit_defaults=True):
    """Stop pulling, give back what has not started, finish what has, leave."""

    grace: float | None = None


class Kill(msgspec.Struct, tag="kill"):
    """Sent to ``cb.control.minders``: whichever controller minds this host's process is to end it.

    It drains, and is killed if it has not ended after its grace: a host whose event loop is blocked does not
    hear of a :class:`Drain`.
    """

    host: str


class Tell(msgspec.Struct, tag="tell"):
    """Publish your whole state as telemetry: somebody has missed a report, or has just begun to listen."""


class PrefixesQuery(msgspec.Struct, tag="prefixes"):
    """Tell everything that your engines hold on ``cb.prefix.<actor>``: somebody has just begun to listen."""


class Migrate(msgspec.Struct, tag="migrate"):
    """Hand these sessions of an actor over to another host. Answered with :class:`Migrated`.

    Attributes:
        to: the host that holds them from then on. Asked again, a host tells how far it is.
    """

    actor: str
    sessions: list[str]
    to: str


class Activate(msgspec.Struct, tag="activate"):
    """These sessions of an actor are yours: open them. Answered with :class:`Acknowledged`.

    Attributes:
        sessions: each with the epoch of the commit that says so.
    """

    actor: str
    sessions: dict[str, int]


class Moved(msgspec.Struct, tag="moved"):
    """These sessions of an actor are on another host: their next calls are best sent there."""

    actor: str
    sessions: list[str]
    host: str


Control = (
    Cancel
    | Taken
    | HoldsQuery
    | CallsQuery
    | RunQuery
    | SaidQuery
    | Drain
    | Kill
    | Migrate
    | Activate
    | Moved
    | Tell
    | PrefixesQuery
)


class Steal(msgspec.Struct):
    """Sent to ``cb.steal.<host>``: let me have calls that wait too long. Answered with :class:`Stolen`.

    Attributes:
        by: the host that asks; it finds them in its lane.
        most: so many at most.
    """

    actor: str
    by: str
    most: int


class Stolen(msgspec.Struct):
    """What a host has given away.

    Attributes:
        calls: how many; left: and how many more there are.
    """

    host: str
    calls: int = 0
    left: int = 0


class Holds(msgspec.Struct):
    """Stream sequences that a host holds un-acked."""

    host: str
    sequences: list[int] = []


class Calls(msgspec.Struct):
    """Calls that a host has, by future id, each with the stream sequence of its message.

    Attributes:
        running: they run, or are about to; asking: the host asks others about them, too.
    """

    host: str
    running: dict[str, int] = {}
    asking: dict[str, int] = {}


class RunCall(msgspec.Struct, omit_defaults=True):
    """A call that has no outcome yet.

    Attributes:
        future: its id; call: ``actor.method``; attempt: which.
        waited: seconds before it was begun, or until now.
        took: seconds in the handler so far; None: it waits in the mailbox.
    """

    future: str
    call: str
    attempt: int = 1
    waited: float = 0.0
    took: float | None = None


class SentCall(msgspec.Struct, omit_defaults=True):
    """A call that a driver or handler has sent, and of which it knows no outcome.

    Attributes:
        future: its id; call: ``actor.method``.
        executor: the host whose lane it was sent to; empty: any.
        waited: seconds since it was sent.
    """

    future: str
    call: str
    executor: str = ""
    waited: float = 0.0


class RunCalls(msgspec.Struct, omit_defaults=True):
    """What a host has of a run; of each list a thousand at most.

    Attributes:
        calls: that have no outcome yet.
        waits: what the run waits for, where this host drives it.
        sent: calls whose outcome something on this host waits for, wherever they are.
    """

    host: str
    calls: list[RunCall] = []
    waits: list[Awaited] = []
    sent: list[SentCall] = []


class Said(msgspec.Struct):
    """What models have said so far in answers that are not complete yet; what has no room is left out."""

    host: str
    tokens: list[Tokens] = []


class Acknowledged(msgspec.Struct):
    """The host heard."""

    host: str


class Migration(msgspec.Struct, omit_defaults=True):
    """How the move of one session stands.

    Attributes:
        session: its id; host: that holds it now; epoch: of that holder.
        calls: that waited for the session, and went after it.
        under_way: a call of the session has to end first.
        error: why it has not moved.
    """

    session: str
    host: str
    epoch: int = 0
    calls: int = 0
    under_way: bool = False
    error: ErrorInfo | None = None


class Migrated(msgspec.Struct):
    """How the moves stand that a host was asked for."""

    host: str
    sessions: list[Migration]
