"""How long calls are likely to take, as far as this process has heard: a copy of the runtime table's curves.

The controller that leads writes them, and each process hears of them as they are stored. Asking costs a
look-up; nothing waits for an answer. Without a controller the last curves known stay, and without any nothing
is expected of any call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from callboard.infra import log, subjects
from callboard.infra.errors import CallboardError
from callboard.state.curves import Expected, read_curve, read_curves

if TYPE_CHECKING:
    from callboard.actors.node import Node
    from callboard.infra.messages.runtimes import Curve

MOST = 10_000
"""Methods of which a process keeps what to expect; of others it expects nothing."""


class Expectations:
    """What is expected of calls.

    Args:
        node: of this process, open.
        spawn: runs a coroutine on the side.
    """

    def __init__(self, node: Node, spawn: Callable[..., object]) -> None:
        self._node = node
        self._spawn = spawn
        self._known: dict[str, Expected] = {}
        self._sid = 0
        self._log = log.get("expectations")

    def start(self) -> None:
        """Hear of curves from now on, and read on the side what there is. Idempotent."""
        if self._sid:
            return
        pattern = subjects.runtime_curve("*", "*")
        self._sid = self._node.connection.subscribe(pattern, self._on_curve)
        self._node.connection.on_reconnect(self._read_again)
        self._read_again()

    def stop(self) -> None:
        """Idempotent."""
        if self._sid:
            self._node.connection.unsubscribe(self._sid)
            self._sid = 0

    def __len__(self) -> int:
        return len(self._known)

    def seconds(self, call: str, size: int = 0) -> float:
        """How long a call is likely to take; 0: nobody knows.

        Args:
            call: ``actor.method``; size: bytes of its arguments; 0: it is not known.
        """
        known = self._known.get(call)
        if known is None:
            return 0.0
        return known.seconds(size) if size else known.middle

    def of(self, call: str) -> Expected | None:
        """All that is expected of a method's calls."""
        return self._known.get(call)

    def _on_curve(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        curve = read_curve(subject.decode("utf-8", "replace"), data)
        if curve is not None:
            self._take(curve)

    def _take(self, curve: Curve) -> None:
        if len(self._known) >= MOST and curve.call not in self._known:
            return
        try:
            self._known[curve.call] = Expected(curve)
        except ValueError:  # anybody may write there
            self._log.warning("curve_unusable", call=curve.call, action="going on with the one before")

    def _read_again(self) -> None:
        if self._sid:
            self._spawn(self._read())

    async def _read(self) -> None:
        try:
            for curve in await read_curves(self._node.reader):
                self._take(curve)
        except CallboardError as error:  # at the next connection, and as they are written
            self._log.warning("curves_unread", error=str(error))
