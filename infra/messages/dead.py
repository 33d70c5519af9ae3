"""What lies in the dead letters, ``cb.dead.<actor>``; read by operators."""

from __future__ import annotations

import msgspec

from callboard.infra.messages.run import ErrorInfo


class DeadLetter(msgspec.Struct, omit_defaults=True):
    """A message that nobody could handle.

    Attributes:
        reason: stable code: ``undecodable``, ``unknown_actor``, ``unknown_method``,
            ``too_many_deliveries``, ``refused_by_store`` or ``run_id_taken``.
        detail: the same in words, and what to do.
        subject, headers, body: the message as it was.
        stream, sequence, delivered: where it came from and how often it was delivered.
        at: unix seconds; host: who gave it up.
        history: errors of earlier attempts, oldest first.
    """

    actor: str
    reason: str
    detail: str
    subject: str
    headers: dict[str, str] = {}
    body: bytes = b""
    stream: str = ""
    sequence: int = 0
    delivered: int = 0
    at: float = 0.0
    host: str = ""
    history: list[ErrorInfo] = []
