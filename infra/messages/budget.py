"""What is kept in bucket ``cb_budget``: what may be spent on models, and what was; written by their hosts."""

from __future__ import annotations

import msgspec


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What may be spent on models; None: no limit.

    Attributes:
        calls: requests to engines. tokens: as engines count them, prompts included.
        seconds: that engines took, of requests side by side each its own.
        usd: by the prices that the models' hosts were given.
        when_spent: ``stop``: calls fail; ``ask``: they wait until somebody raises it; ``degrade``: they go to
            the model ``degrade_to``, which this budget does not limit.
    """

    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    usd: float | None = None
    when_spent: str = "stop"
    degrade_to: str = ""


class Amounts(msgspec.Struct, omit_defaults=True):
    """What was spent, or is reserved; units as in a Budget."""

    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    usd: float = 0.0


class Reservation(Amounts, omit_defaults=True):
    """What a request under way is reckoned to take at most.

    Attributes:
        at: unix seconds, when it was reserved.
    """

    at: float = 0.0


class Account(msgspec.Struct, omit_defaults=True):
    """A budget and what was taken from it.

    Attributes:
        scope: ``run``, ``session`` or ``key``; id: of that.
        spent: by requests that have ended. open: reserved by those under way, by the id of the request.
        settled: requests that have ended lately, unix seconds by id; they are not charged again.
        limits_at: unix milliseconds, when its limits were set or raised; later with each time.
        at: unix seconds of the last change.
    """

    scope: str
    id: str
    budget: Budget
    spent: Amounts = msgspec.field(default_factory=Amounts)
    open: dict[str, Reservation] = {}
    settled: dict[str, float] = {}
    limits_at: int = 0
    at: float = 0.0
