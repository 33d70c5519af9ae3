"""How generated code is laid out: as ruff and black would."""

from __future__ import annotations

from collections.abc import Sequence

INDENT = "    "
WIDTH = 88


def bracketed(start: str, items: Sequence[str], end: str) -> list[str]:
    """``start(items)end`` in one line if that fits, else with a line for each item.

    Args:
        start: what stands in front, with its indentation.
    """
    line = f"{start}({', '.join(items)}){end}"
    if len(line) <= WIDTH or not items:
        return [line]
    indent = start[: len(start) - len(start.lstrip())]
    return [f"{start}(", *(f"{indent}{INDENT}{item}," for item in items), f"{indent}){end}"]
