"""What hosts are told on ``cb.control.<host>`` (or ``cb.control.all``), and what they answer."""

from __future__ import annotations

import msgspec


class Cancel(msgspec.Struct, tag="cancel", omit_defaults=True):
    """Stop every call of the run whose future id is, or descends from, one of ``futures``.

    Attributes:
        run: the run; futures: ids, or nothing for all of the run.
        reason: told to the handlers' caller.
    """

    run: str
    futures: list[str] = []
    reason: str = ""


class HoldsQuery(msgspec.Struct, tag="holds"):
    """Which messages of this consumer do you hold un-acked? Answered with :class:`Holds`."""

    stream: str
    consumer: str


class Drain(msgspec.Struct, tag="drain", omit_defaults=True):
    """Stop pulling, give back what has not started, finish what has, leave."""

    grace: float | None = None


Control = Cancel | HoldsQuery | Drain


class Holds(msgspec.Struct):
    """Stream sequences that a host holds un-acked."""

    host: str
    sequences: list[int] = []


class Acknowledged(msgspec.Struct):
    """The host heard."""

    host: str
