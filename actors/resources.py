"""Resources: what instances need, what a host has, and which actors of an application it serves.

They are an instance's, not a call's: what it holds (a model on a GPU) it holds whether it works or not. So
they are counted once, when its host starts, and it has them for as long as the host lives.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import psutil

from callboard.actors.apart import apart
from callboard.actors.app import AppUnloadable, load, load_all, split
from callboard.infra import log
from callboard.infra.errors import CallboardError

if TYPE_CHECKING:
    from callboard.actors.declared import Declaration
    from callboard.infra.settings import Settings

_APART = "run it on another host: models and tools share no process (--kind)"
_GB = 1e9
_ROUNDING = 1e-9


class ResourcesLacking(CallboardError):
    """A host has not what an actor needs. Fields: actor, needs, free (amounts by name)."""

    code = "resources_lacking"


class Placed(NamedTuple):
    """What a host serves of what it was given, and what has to be served elsewhere.

    Attributes:
        apart: those of the latter that need a process without others of these, and nothing else.
    """

    served: list[Declaration]
    left_out: list[Declaration]
    apart: Sequence[Declaration] = ()


def capacity(settings: Settings) -> dict[str, float]:
    """What this host has: the machine's cores and memory, and what the settings say, which counts first."""
    machine = {"cpu": float(os.cpu_count() or 1), "memory_gb": psutil.virtual_memory().total / _GB}
    return machine | settings.resources


def place(
    declarations: Iterable[Declaration],
    settings: Settings,
    required: Collection[str] | None = None,
    *,
    lenient: bool = False,
) -> Placed:
    """Choose what a host can serve: those it has to first, then the others in their order.

    Args:
        required: names of actors that must not be left out; None: all.
        lenient: models may be left out all the same, where there are tools.

    Raises:
        ResourcesLacking: it has not what one of these needs. ToolsBesideModel: see there.
    """
    declarations, away = apart(list(declarations), () if lenient else required)
    for declared in away:
        log.get("host").info("actor_apart", actor=declared.name, kind=declared.kind, fix=_APART)
    if not any(declared.directives.resources for declared in declarations):
        return Placed(declarations, away, away)
    free = capacity(settings)
    placed = Placed([], [])
    for declared in sorted(declarations, key=lambda d: required is not None and d.name not in required):
        needs = declared.directives.resources
        if all(amount <= free.get(name, 0.0) + _ROUNDING for name, amount in needs.items()):
            for name, amount in needs.items():
                free[name] -= amount
            placed.served.append(declared)
        elif required is None or declared.name in required:
            raise _lacking(declared, free)
        else:
            placed.left_out.append(declared)
            _warn(declared, free)
    if not placed.served:
        raise _lacking(placed.left_out[0], free)
    return Placed(placed.served, placed.left_out + away, away)


def place_app(
    specs: Sequence[str],
    settings: Settings,
    kinds: Collection[str] = (),
    beside: Iterable[Declaration] = (),
    *,
    lenient: bool = False,
) -> Placed:
    """Load applications and choose what a host can serve of them; what is named there must not be left out.

    Args:
        kinds: of actors; none: all. beside: what the host has to serve, too. lenient: as of :func:`place`.

    Raises:
        AppUnloadable, UnknownActor: as for :func:`callboard.actors.app.load`; or it has none of these kinds.
        ResourcesLacking: it has not what a named actor needs, or has nothing that any of them needs.
        ToolsBesideModel: tools and models are named.
    """
    own = list(beside)
    found = [declared for declared in load_all(specs) if not kinds or declared.kind in kinds]
    if not (found or own):
        raise AppUnloadable(
            f"{', '.join(specs)} declares no {' and no '.join(kinds)}", app=", ".join(specs), reason="empty"
        )
    named = {declared.name for spec in specs if split(spec)[1] for declared in load(spec).declarations}
    return place([*found, *own], settings, named | {declared.name for declared in own}, lenient=lenient)


def told(amounts: dict[str, float]) -> str:
    """Amounts as they are given on the command line."""
    return " ".join(f"{name}={amount:g}" for name, amount in amounts.items())


def _short_of(declared: Declaration, free: dict[str, float]) -> dict[str, float]:
    """What is free of each resource that an actor needs."""
    return {name: free.get(name, 0.0) for name in declared.directives.resources}


def _lacking(declared: Declaration, free: dict[str, float]) -> ResourcesLacking:
    needs, left = declared.directives.resources, _short_of(declared, free)
    return ResourcesLacking(
        f"{declared.kind} {declared.name} needs {told(needs)}, and free here is {told(left)}: run it on "
        "another host, or say what this one has with --resource or CALLBOARD_RESOURCES",
        actor=declared.name,
        needs=needs,
        free=left,
    )


def _warn(declared: Declaration, free: dict[str, float]) -> None:
    log.get("host").warning(
        "actor_left_out",
        actor=declared.name,
        needs=told(declared.directives.resources),
        free=told(_short_of(declared, free)),
        fix="run it on another host, or say what this one has with --resource or CALLBOARD_RESOURCES",
    )
