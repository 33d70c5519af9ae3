"""Stubs: a typed Python module written from the registry, for drivers in other repositories.

``remote`` is what such a module stands on while it runs; the rest writes it. This module loads neither,
so that a driver pays for what it uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callboard.actors.node import Node


async def generate(node: Node, names: Sequence[str] = ()) -> str:
    """Write a Python module with typed stubs of agents and tools, from what the registry tells of them.

    The text is the same whenever the registry is, and needs callboard, msgspec and the standard
    library only.

    Args:
        node: an open one.
        names: of the actors; all agents and tools if there are none.

    Raises:
        UnknownActor: the registry has no agent or tool of this name.
    """
    from callboard.actors.registry import actors
    from callboard.actors.stubs.choose import choose
    from callboard.actors.stubs.module import write

    return write(choose(await actors(node), names), everything=not names)
