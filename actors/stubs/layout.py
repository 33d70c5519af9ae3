"""How generated code is laid out: as ruff and black would."""

from __future__ import annotations

from collections.abc import Sequence

INDENT = "    "
_WIDTH = 88


def bracketed(start: str, items: Sequence[str], end: str, brackets: str = "()") -> list[str]:
    """``start(items)end`` in one line if that fits, else with a line for each item.

    Args:
        start: what stands in front, with its indentation.
    """
    opening, closing = brackets
    if not items:
        return [f"{start}{opening}{closing}{end}"]
    line = f"{start}{opening}{', '.join(items)}{closing}{end}"
    if len(line) <= _WIDTH:
        return [line]
    indent = start[: len(start) - len(start.lstrip())]
    return [
        f"{start}{opening}",
        *(f"{indent}{INDENT}{item}{'' if item == '*' and item is items[-1] else ','}" for item in items),
        f"{indent}{closing}{end}",
    ]
