"""How many more instances there is room for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callboard.infra.messages.registry import ActorInfo

PLENTY = 1_000_000
"""As many as anybody could want: no limit is known."""
_ROUNDING = 1e-9

Amounts = Mapping[str, float]
"""Amounts of resources by name."""


def room(
    places: Mapping[str, Sequence[str]],
    capacity: Mapping[str, Amounts],
    needs: Mapping[str, Amounts],
    used: Iterable[tuple[str, str]],
    most: int,
) -> dict[str, dict[str, int]]:
    """How many more instances of each actor fit at each place, were all that is left theirs.

    Args:
        places: by actor; capacity: by place, where it is known; needs: of an instance, by actor.
        used: actor and place of each instance that there is, and holds what it needs.
        most: instances that may still be started in all places together.
    """
    free = {place: dict(amounts) for place, amounts in capacity.items()}
    for actor, place in used:
        for name, amount in needs.get(actor, {}).items():
            if place in free:
                free[place][name] = free[place].get(name, 0.0) - amount
    return {
        actor: {place: min(max(0, most), _fit(free.get(place), needs.get(actor, {}))) for place in where}
        for actor, where in places.items()
    }


def _fit(free: Amounts | None, needs: Amounts) -> int:
    if free is None:
        return PLENTY
    fits = [int((free.get(name, 0.0) + _ROUNDING) / amount) for name, amount in needs.items() if amount > 0]
    return max(0, min(fits, default=PLENTY))


def most_hosts(cores: float, actors: Iterable[ActorInfo]) -> int:
    """How many hosts at one time, unless somebody says: the cores, or what ``min_instances`` ask for.

    Args:
        cores: of the machine; actors: that may be started on it.
    """
    return max(int(cores), sum(int(actor.directives.get("min_instances", 0)) for actor in actors))


def plenty(has: Amounts) -> dict[str, float]:
    """Enough of each resource for every actor at once."""
    return {name: amount * PLENTY for name, amount in has.items()}


def resource_words(has: Amounts) -> list[str]:
    """Amounts as options of ``callboard host``."""
    return [word for name, amount in has.items() for word in ("--resource", f"{name}={amount:g}")]
