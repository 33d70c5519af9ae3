"""Which actors a module of stubs is about."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from callboard.infra.errors import UnknownActor
from callboard.infra.messages.registry import ActorInfo


def choose(known: Sequence[ActorInfo], names: Sequence[str]) -> list[ActorInfo]:
    """The actors of these names in the order of their names; all agents and tools if none is given.

    Raises:
        UnknownActor: there is none of this name, or it is a workflow.
    """
    by_name = {actor.name: actor for actor in sorted(known, key=lambda a: a.name)}
    for name in names:
        if name not in by_name:
            raise UnknownActor(_unknown(name, by_name), actor=name)
        if by_name[name].kind == "workflow":
            raise UnknownActor(
                f"{name} is a workflow, so it has no stub: ask for a run of it with a client "
                f"(callboard.connect, then submit(\"{name}\", ...)) or with 'callboard run {name}'",
                actor=name,
            )
    wanted = set(names) or {actor.name for actor in known if actor.kind != "workflow"}
    return [actor for name, actor in by_name.items() if name in wanted]


def _unknown(name: str, known: dict[str, ActorInfo]) -> str:
    callable_names = [actor.name for actor in known.values() if actor.kind != "workflow"]
    by_small = {one.lower(): one for one in callable_names}
    small = name.lower()
    alike = difflib.get_close_matches(small, by_small, n=3) or [one for one in by_small if small in one]
    close = [by_small[one] for one in alike]
    if close:
        return f"the registry has no actor {name}: did you mean {' or '.join(close)}?"
    if callable_names:
        return f"the registry has no actor {name}: it has {', '.join(callable_names)}"
    return f"the registry has no actor {name}, nor any other: start a host first ('callboard host APP')"
