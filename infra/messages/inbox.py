"""What is kept in bucket ``cb_inbox``; read by whoever answers questions."""

from __future__ import annotations

from typing import Any

import msgspec


class Question(msgspec.Struct, omit_defaults=True):
    """A question that a run asks a human.

    Attributes:
        id: of the future that the answer resolves.
        run, workflow, session: who asks.
        question: the text.
        schema: JSON schema of the answer; empty: anything.
        to: whom it is for; empty: anyone.
        since, deadline: unix seconds; 0: no deadline.
        problem: why the last answer was refused.
    """

    id: str
    run: str
    workflow: str
    session: str = ""
    question: str = ""
    schema: dict[str, Any] = {}
    to: str = ""
    since: float = 0.0
    deadline: float = 0.0
    problem: str = ""
