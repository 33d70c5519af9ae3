"""Which workflows there are, as their hosts have announced them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from callboard.actors.app import unknown
from callboard.infra.errors import InvalidArguments
from callboard.infra.messages.registry import ActorInfo


class Workflows:
    """The announced workflows; what is refused is refused by what the registry says now.

    Args:
        announced: reads the registry as it is now.
    """

    def __init__(self, announced: Callable[[], Awaitable[list[ActorInfo]]]) -> None:
        self._announced = announced
        self._known: dict[str, ActorInfo] = {}

    async def check(self, name: str, given: Iterable[str]) -> None:
        """See that there is such a workflow and that it can do with these arguments.

        Types are checked by its driver, which knows them; the run then fails with the same error.

        Raises:
            UnknownActor: nobody has announced it; the text says what was probably meant.
            InvalidArguments: one is missing.
        """
        found = self._known.get(name)
        if found is None or _missing(found, given):
            announced = await self._announced()
            self._known = {actor.name: actor for actor in announced if actor.kind == "workflow"}
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
