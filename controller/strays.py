"""What lies in a stream on a subject that nobody reads: somebody has published it by mistake."""

from __future__ import annotations

from callboard.infra import subjects

_BANDS = frozenset("012")


def is_stray(subject: str) -> bool:
    """Whether no consumer will ever deliver what lies there.

    Args:
        subject: below ``cb.call`` or ``cb.request``.
    """
    kind, *tokens = subject.split(".")[1:]
    if not all(map(subjects.is_token, tokens)):
        return True
    if kind == "request":
        return len(tokens) != 1
    # In the lane of a host the last token may be any.
    return len(tokens) != 3 or (tokens[1] == subjects.ANY and tokens[2] not in _BANDS)


def dropping(stream: str, *found: str) -> str:
    """How to drop what lies on these subjects, with the command line of NATS."""
    return "; ".join(f"nats stream purge {stream} --subject '{one}' -f" for one in found)


def messages(count: int) -> str:
    """So many, in words."""
    return f"{count:,} message{'' if count == 1 else 's'}"


def waits(count: int) -> str:
    """So many that wait, in words."""
    return f"wait{'s' if count == 1 else ''}"
