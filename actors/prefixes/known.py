"""What this process knows of the engines' prefix caches: hearing it, telling it, and going by it."""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from callboard.actors.models.cache import Read
from callboard.actors.prefixes.blocks import Blocks
from callboard.actors.prefixes.chain import Chain, of_call, of_request
from callboard.actors.prefixes.choosing import Choice, Engine, choose
from callboard.actors.prefixes.holders import Holders
from callboard.actors.prefixes.loads import Loads
from callboard.infra import log, subjects
from callboard.infra.messages.control import PrefixesQuery
from callboard.infra.messages.prefixes import Prefixes

if TYPE_CHECKING:
    from callboard.actors.future import Future
    from callboard.actors.models.cache import CacheEvent
    from callboard.actors.models.types import ChatRequest, CompletionRequest
    from callboard.infra.connection import Connection
    from callboard.infra.messages.registry import Pulse

_EVERY: Final = 0.1
"""Seconds: what an engine is given within them is told at once."""
_MINE: Final = 20_000
"""Points of an own engine that are remembered, to be told to who asks."""
_SOME: Final = 8_000
"""Points of one message."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Prefixes).decode


class PrefixCaches:
    """The prefix caches of engines, as a host knows its own and hears of others'.

    Nothing here is durable. What is lost costs an engine some work that another one would not have had.

    Args:
        connection: of the process; host: its id.
        alive: the last heartbeat of every host.
        wanted: whether calls of a model go by their prefix.
    """

    def __init__(
        self,
        connection: Connection,
        host: str,
        alive: Mapping[str, Pulse],
        wanted: Callable[[str], bool],
    ) -> None:
        self._connection = connection
        self._host = host
        self._wanted = wanted
        self._holders: dict[str, Holders] = {}
        self._mine: dict[str, _Own] = {}
        self._sid = 0
        self.loads = Loads(alive)
        self._log = log.get("prefixes").bind(host=host)

    def start(self) -> None:
        """Hear what others tell, and ask for what they have told. Idempotent."""
        if not self._sid:
            self._sid = self._connection.subscribe(subjects.prefixes("*"), self._on_told)
            self._connection.on_reconnect(self._ask)
            self._ask()

    def stop(self) -> None:
        """Idempotent."""
        for own in self._mine.values():
            own.stop()
        if self._sid:
            self._connection.unsubscribe(self._sid)
            self._sid = 0

    # -- going by it -------------------------------------------------------------------------------

    def place(self, future: Future[object], body: bytes, hosts: Sequence[str]) -> Choice:
        """Where a call goes, of these hosts; it is taken to be sent there.

        Args:
            body: its encoded arguments.
        """
        actor = future.method.actor
        chain = of_call(future.method.name, body)
        choice = self.choose(actor, chain, hosts)
        if chain is not None:
            self._known(actor).add(chain.points, choice.host)
        self.loads.sent(actor, choice.host)
        future.add_done_callback(partial(self._ended, actor, choice.host))
        return choice

    def elsewhere(self, actor: str, method: str, body: bytes, hosts: Sequence[str]) -> Choice:
        """Where a call goes that has failed here: to another one of these hosts, if there is one."""
        others = [host for host in hosts if host != self._host]
        return self.choose(actor, of_call(method, body), others or hosts)

    def choose(self, actor: str, chain: Chain | None, hosts: Sequence[str]) -> Choice:
        """The same for a prompt that is not sent yet."""
        known = self._known(actor)
        depths = {} if chain is None else known.depths(chain.points)
        engines = [
            Engine(host, self.loads.of(actor, host), depths.get(host, 0), known.count(host)) for host in hosts
        ]
        return choose(engines, chain)

    def _ended(self, actor: str, host: str, _: object) -> None:
        self.loads.ended(actor, host)

    def _known(self, actor: str) -> Holders:
        return self._holders.setdefault(actor, Holders())

    # -- hearing of it -----------------------------------------------------------------------------

    def _ask(self) -> None:
        if self._sid:
            self._connection.publish(subjects.control(), _encode(PrefixesQuery()))

    def _on_told(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        actor = subject.decode("utf-8", "replace").rpartition(".")[2]
        try:
            told = _decode(data)
            held, gone = _points(told.held), _points(told.gone)
        except (msgspec.DecodeError, struct.error, RecursionError):
            self._log.warning("prefixes_unreadable", actor=actor)
            return
        if not self._wanted(actor):
            self._holders.pop(actor, None)
            return
        known = self._known(actor)
        if told.anew:
            known.forget(told.host)
        known.drop(gone, told.host)
        known.add(held, told.host)

    # -- telling it --------------------------------------------------------------------------------

    def served(self, actor: str, request: ChatRequest | CompletionRequest) -> None:
        """An engine of this host has read a prompt."""
        if self._wanted(actor):
            self._own(actor).add(of_request(request).points)

    def cached(self, actor: str, event: CacheEvent) -> None:
        """An engine of this host tells of its cache."""
        if not isinstance(event, Read) or self._wanted(actor):
            self._own(actor).blocks.take(event)

    def lost(self, actor: str) -> None:
        """An engine of this host holds nothing any more: it has begun anew."""
        own = self._mine.get(actor)
        if own is not None:
            own.forget()

    def tell(self) -> None:
        """Tell everything again: somebody has begun to listen."""
        for own in self._mine.values():
            own.tell_all()

    def _own(self, actor: str) -> _Own:
        if actor not in self._mine:
            self._mine[actor] = _Own(self._host, partial(self._publish, actor))
        return self._mine[actor]

    def _publish(self, actor: str, told: Prefixes) -> None:
        if self._connection.connected.is_set():  # else it is told when there is a connection again
            self._connection.publish(subjects.prefixes(actor), _encode(told))


class _Own:
    """What an engine of this host holds, and how that is told.

    Args:
        host: its id; publish: sends a message.

    Attributes:
        blocks: of its cache, if it tells of them.
    """

    def __init__(self, host: str, publish: Callable[[Prefixes], None]) -> None:
        self._host = host
        self._publish = publish
        self._held: OrderedDict[int, None] = OrderedDict()
        self._new: dict[int, None] = {}
        self._gone: dict[int, None] = {}
        self._anew = False
        self._timer: asyncio.TimerHandle | None = None
        self.blocks = Blocks(self.drop, self.forget)

    def stop(self) -> None:
        """Tell nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def add(self, points: Sequence[int]) -> None:
        """It holds the links of a chain."""
        for point in reversed(points):
            if point not in self._held:
                self._new[point] = None
                self._gone.pop(point, None)
            self._held[point] = None
            self._held.move_to_end(point)
        while len(self._held) > _MINE:
            self._new.pop(self._held.popitem(last=False)[0], None)
        self._soon()

    def drop(self, points: Iterable[int]) -> None:
        """It holds these no more."""
        for point in points:
            if point in self._held:
                del self._held[point]
                self._new.pop(point, None)
                self._gone[point] = None
        self._soon()

    def forget(self) -> None:
        """It holds nothing."""
        if self._held:
            self._held.clear()
            self.tell_all()

    def tell_all(self) -> None:
        """Tell everything that it holds."""
        self._anew = True
        self._new = dict.fromkeys(self._held)
        self._gone.clear()
        self._soon()

    def _soon(self) -> None:
        if self._timer is None and (self._new or self._gone or self._anew):
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self._tell)

    def _tell(self) -> None:
        self._timer = None
        held, gone, anew = list(self._new), list(self._gone), self._anew
        self._new.clear()
        self._gone.clear()
        self._anew = False
        while held or gone or anew:
            now, held = held[:_SOME], held[_SOME:]
            left, gone = gone[:_SOME], gone[_SOME:]
            self._publish(Prefixes(self._host, _packed(now), _packed(left), anew))
            anew = False


def _packed(points: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(points)}Q", *points)


def _points(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(packed) // 8}Q", packed)
