"""Keys of a managed dict: as long as a value may be that stands beside others, and no longer."""

from __future__ import annotations

import pytest
from tests.state.conftest import Join, Process
from tests.support.state import Actor

from callboard import ManagedDict
from callboard.infra.errors import ItemInvalid
from callboard.infra.settings import Settings

LIMIT = Settings().inline_limit


class Notes:
    """A dict."""

    notes: ManagedDict[str, int]


async def test_a_key_that_is_too_long(process: Process, join: Join) -> None:
    """The error says how long it is, and how long it may be; what else the call does is kept."""
    actor = Actor(Notes, (await join()).shelf, process.settings)
    async with actor.call("r:1"):
        actor.agent.notes["short"] = 1
        with pytest.raises(ItemInvalid, match=r"a key of Notes\.notes has 65,541 bytes, .* 65,536") as caught:
            actor.agent.notes["x" * LIMIT] = 2
        assert "cb_state" not in str(caught.value)
        assert caught.value.fields == {"attribute": "Notes.notes", "size": LIMIT + 5, "limit": LIMIT}
        with pytest.raises(ItemInvalid):
            actor.agent.notes.setdefault("x" * LIMIT, 2)
        assert "x" * LIMIT not in actor.agent.notes
    async with actor.call("r:2"):
        assert actor.agent.notes.copy() == {"short": 1}


async def test_keys_that_are_just_short_enough(process: Process, join: Join) -> None:
    """Any number of them may be put in by one call."""
    actor = Actor(Notes, (await join()).shelf, process.settings)
    keys = [f"{number:04}{'x' * (LIMIT - 20)}" for number in range(40)]
    async with actor.call("r:1"):
        actor.agent.notes.update({key: number for number, key in enumerate(keys)})
    actor.restart()
    async with actor.call("r:2"):
        assert dict(actor.agent.notes.items()) == {key: number for number, key in enumerate(keys)}
