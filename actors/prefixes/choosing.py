"""Which engine a call goes to: the one that holds most of its prompt, unless that one has too much to do.

Source of the bound: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (SODA, 2018);
what goes by the prefix, and what by load alone: the cache-aware router of SGLang (Zheng and others, "SGLang:
Efficient Execution of Structured Language Model Programs", NeurIPS, 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from callboard.actors.prefixes.chain import Chain
from callboard.actors.prefixes.loads import Load

BOUND: Final = 1.5
"""How many times its share of all calls an engine may have, and still be sent what it holds."""
FLOOR: Final = 0.5
"""Share of an engine's slots up to which it is sent what it holds in any case."""


class Engine(NamedTuple):
    """One that may be chosen.

    Attributes:
        host: that it is on; load: of it.
        depth: links of the prompt's chain that it holds; held: points that it holds in all.
    """

    host: str
    load: Load
    depth: int = 0
    held: int = 0


class Choice(NamedTuple):
    """Where a call goes.

    Attributes:
        host: there; why: in words.
    """

    host: str
    why: str


def choose(engines: Sequence[Engine], chain: Chain | None) -> Choice:
    """The engine for a prompt; there has to be one.

    A conversation goes where it was, as far as the bound allows. What an agent's conversations have in common
    binds none of them to an engine: a new one goes by load, and of engines that have equally much to do
    to the one that holds least.
    """
    room = _rooms(engines)
    head = 0 if chain is None else chain.head
    holding = sorted((one for one in engines if one.depth > head), key=lambda one: (-one.depth, _order(one)))
    for one in holding:
        assert chain is not None
        if one.load.calls + 1 <= room[one.host]:
            more = (
                "" if one is holding[0] else f", and {holding[0].host}, which holds more, has too much to do"
            )
            return Choice(one.host, f"it holds {_part(chain, one.depth)}{more}")
    least = min(engines, key=_order)
    if not holding or chain is None:
        return Choice(least.host, "no engine holds its conversation; this one has least to do")
    most = holding[0]
    busy = f"{most.host} holds {_part(chain, most.depth)}, and has too much to do: {most.load.calls} calls"
    return Choice(least.host, f"{busy}; this one has least")


def _rooms(engines: Sequence[Engine]) -> Mapping[str, float]:
    """How many calls each engine may have, to be sent what it holds."""
    calls = 1 + sum(one.load.calls for one in engines)
    slots = sum(one.load.slots for one in engines)
    share = BOUND * calls / slots
    return {one.host: max(1.0, one.load.slots * max(FLOOR, share)) for one in engines}


def _order(one: Engine) -> tuple[float, int, str]:
    return one.load.calls / one.load.slots, one.held, one.host


def _part(chain: Chain, depth: int) -> str:
    return f"{chain.held(depth)} of {chain.size} characters"
