"""Messages of the floor, shared by its client and its worker."""

import enum

import msgspec

STREAM = "FLOOR"
SUBJECT = "floor.jobs"
CONSUMER = "workers"
READY = "floor worker ready"


class Kind(enum.Enum):
    """What a job asks for."""

    NOOP = "noop"
    SLEEP = "sleep"
    HELD = "held"
    INTERRUPTED = "interrupted"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job.

    Args:
        id: correlates the reply.
        reply: the client's inbox.
        kind: what to do.
        number: argument of `HELD` and `INTERRUPTED`.
        seconds: argument of `SLEEP`.
    """

    id: int
    reply: str
    kind: Kind
    number: int = 0
    seconds: float = 0.0


class Reply(msgspec.Struct, frozen=True):
    """The answer to the job of this id; `error` is empty when it succeeded."""

    id: int
    error: str = ""
