"""Reading the parts of a state that a process has not got yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

import msgspec

from callboard.infra.errors import StateDamaged
from callboard.state import packing
from callboard.state.packing import large_key, part_key
from callboard.state.shelf import Place, Shelf
from callboard.state.tree import Node, Unread


class Parts:
    """The parts of one state.

    Args:
        place: whose it is; shelf: where it lies.

    Attributes:
        place: whose it is.
    """

    def __init__(self, place: Place, shelf: Shelf) -> None:
        self.place = place
        self._shelf = shelf

    async def read(self, unread: Sequence[Unread]) -> None:
        """Read nodes and large items.

        Raises:
            StateDamaged: one is not there.
        """
        self._fill(unread, await self._shelf.load(self.place, [_key(one) for one in unread]))

    def read_now(self, unread: Sequence[Unread]) -> None:
        """The same, waited for in this thread."""
        self._fill(unread, self._shelf.load_now(self.place, [_key(one) for one in unread]))

    def _fill(self, unread: Sequence[Unread], bodies: Mapping[str, bytes]) -> None:
        for one in unread:
            key = _key(one)
            body = bodies.get(key)
            if body is None:
                raise self.damaged(key, "it is not there")
            if not isinstance(one, Node):
                if sha256(body).digest() != one.digest:
                    raise self.damaged(key, "its content has another digest")
                one.raw = body
                continue
            try:
                packing.fill(one, body)
            except (msgspec.MsgspecError, ValueError) as error:
                raise self.damaged(key, str(error)) from error

    def damaged(self, key: str, problem: str) -> StateDamaged:
        """The error for a part or a commit that cannot be used."""
        actor, session = self.place
        return StateDamaged(
            f"the state of session {session} at {actor} cannot be read: {key}: {problem}; look at what "
            f"is kept with 'callboard state history {actor} {session}', or delete it",
            actor=actor,
            session=session,
            key=key,
        )


def _key(one: Unread) -> str:
    return part_key(one.part) if isinstance(one, Node) else large_key(one.digest)
