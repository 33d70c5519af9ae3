"""What is kept in bucket ``cb_policy``: decisions; read by every process that makes calls."""

from __future__ import annotations

import msgspec


class Route(msgspec.Struct, omit_defaults=True):
    """Where calls of an actor go, or those of one session at it.

    Attributes:
        actor: whose calls.
        hosts: weights by host; calls are spread as they say.
        session: whose calls only; empty: all sessions'.
        epoch: of the decision; of two for the same calls the greater counts.
        policy: who decided; reason: why, in words.
        at: unix seconds of the decision; until: when it ends, 0: never.
    """

    actor: str
    hosts: dict[str, float]
    session: str = ""
    epoch: int = 0
    policy: str = ""
    reason: str = ""
    at: float = 0.0
    until: float = 0.0
