"""Which workflows there are, as their hosts have announced them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from callboard.actors import registry
from callboard.actors.app import unknown
from callboard.actors.node import Node
from callboard.infra.errors import InvalidArguments
from callboard.infra.messages.registry import ActorInfo


class Workflows:
    """The announced workflows; what is refused is refused by what the registry says now.

    Args:
        node: of this process.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: dict[str, ActorInfo] = {}
        self._reads = 0
        self._lock = asyncio.Lock()

    async def check(self, name: str, given: Iterable[str]) -> None:
        """See that there is such a workflow and that it can do with these arguments.

        Types are checked by its driver, which knows them; the run then fails with the same error.

        Raises:
            UnknownActor: nobody has announced it; the text says what was probably meant.
            InvalidArguments: one is missing.
        """
        found = self._known.get(name)
        if found is None or _missing(found, given):
            await self._read()
            found = self._known.get(name)
        if found is None:
            raise unknown("workflow", name, self._known, "on this server")
        missing = _missing(found, given)
        if missing:
            takes = sorted(_schema(found).get("properties", {}))
            raise InvalidArguments(
                f"{name}: {', '.join(missing)} missing; it takes {', '.join(takes)}",
                actor=name,
                method="run",
                missing=missing,
                takes=takes,
            )

    async def _read(self) -> None:
        """Read the registry as it is after this call; many who ask at once share one read."""
        asked = self._reads
        async with self._lock:
            if self._reads > asked:  # one has begun and ended since
                return
            self._reads += 1
            found = await registry.actors(self._node)
            self._known = {actor.name: actor for actor in found if actor.kind == "workflow"}


def _missing(workflow: ActorInfo, given: Iterable[str]) -> list[str]:
    required = set(_schema(workflow).get("required", ()))
    return sorted(required.difference(given))


def _schema(workflow: ActorInfo) -> dict[str, Any]:
    """The schema of the argument object; empty where it has none."""
    schema = workflow.methods[0].arguments if workflow.methods else {}
    found: dict[str, Any] = schema.get("$defs", {}).get(
        str(schema.get("$ref", "")).rpartition("/")[2], schema
    )
    return found
