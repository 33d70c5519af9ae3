"""What a model says while it says it, on ``cb.token.<run>.<future>``."""

from __future__ import annotations

import msgspec


class Tokens(msgspec.Struct, omit_defaults=True):
    """A piece of a model's answer. It may be lost or come twice; the call's result is complete.

    Of two messages for a future the one with the greater ``(attempt, begun)`` counts: what an older beginning
    still says is void. So is what it has said, unless the new one goes on with it: then all that was heard
    of ``after`` holds if it is no longer than ``kept``.

    Attributes:
        future: id of the call; attempt: which.
        begun: unix microseconds when this answer began; one that begins anew has a greater one.
        index: counts the messages of this beginning, from 0; in an answer to a query the next one's.
        at: characters of the answer before this piece.
        text: the piece.
        last: the answer is complete.
        after: ``begun`` of the beginning with whose text this one goes on; 0: with none.
        kept: characters of that text; they come before everything that this one says.
        repeats: id of the call whose answer this one is, said again for those who wait for this future; who
            hears all of a run leaves it out.
    """

    future: str
    attempt: int = 1
    begun: int = 0
    index: int = 0
    at: int = 0
    text: str = ""
    last: bool = False
    after: int = 0
    kept: int = 0
    repeats: str = ""


class TakeUp(msgspec.Struct):
    """What have you heard of this answer? Published where it is told, by a host that is to go on with it.

    Whoever listens answers with :class:`Tokens` that have all the text of the last beginning that was heard,
    and from then on hears nothing more of older ones.

    Attributes:
        future, attempt, begun: of the beginning that takes it up.
    """

    future: str
    attempt: int
    begun: int
