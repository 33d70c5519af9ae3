"""What a model says while it says it, on ``cb.token.<run>.<future>``."""

from __future__ import annotations

import msgspec


class Tokens(msgspec.Struct, omit_defaults=True):
    """A piece of a model's answer. It may be lost or come twice; the call's result is complete.

    Of two messages for a future the one with the greater ``(attempt, begun)`` counts: what an older beginning
    has said, or still says, is void.

    Attributes:
        future: id of the call; attempt: which.
        begun: unix microseconds when this answer began; one that begins anew has a greater one.
        index: counts the messages of this beginning, from 0; in an answer to a query the next one's.
        at: characters of the answer before this piece.
        text: the piece.
        last: the answer is complete.
    """

    future: str
    attempt: int = 1
    begun: int = 0
    index: int = 0
    at: int = 0
    text: str = ""
    last: bool = False
