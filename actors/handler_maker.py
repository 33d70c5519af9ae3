"""The calls that a handler makes: its maker, its place in the run, its slot while it waits for them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from callboard.actors.addressing import CallContext
from callboard.actors.inbound import LONGEST_PATH, Call
from callboard.actors.mailbox import rank
from callboard.actors.maker import CallMaker
from callboard.actors.slots import HandlersFuture, Slot
from callboard.actors.weaving import Heard
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import (
    NestedTooDeep,
)

if TYPE_CHECKING:
    from callboard.actors.budgets import Purse
    from callboard.actors.declared import Method
    from callboard.actors.future import Future
    from callboard.actors.host import Host
    from callboard.actors.models.types import ChatRequest, CompletionRequest
    from callboard.actors.speech import Speech


class HandlerMaker:
    """Makes the calls that a handler makes; costs nothing for the many that make none.

    Args:
        host: where it runs.
        slot: lent while the handler waits for them.
        path: what the ids of the calls made begin with, their last dot left out.
    """

    __slots__ = ("_call", "_host", "_maker", "path", "raised", "slot")

    def __init__(self, host: Host, slot: Slot, path: str) -> None:
        self._host = host
        self._call = slot.calls[0]
        self.slot = slot
        self.path = path
        self._maker: CallMaker | None = None
        self.raised: BaseException | None = None
        """What the handler itself has raised."""

    def serve(self, calls: Sequence[Call]) -> None:
        """Of a batch only these are to run: what the handler calls is called for the first of them."""
        self._call, self.path = calls[0], batch_path(calls)

    def maker(self, *, begin: bool = True) -> CallMaker:
        """The real one, made when first needed."""
        if self._maker is None:
            call = self._call
            context = CallContext(
                run=call.run,
                session=call.session,
                workflow=call.workflow,
                creator=self._host.id,
                parent=self.path,
                path=call.path,
                deadline=call.deadline,
                priority=call.priority,
                stage=call.stage,
                trace=call.headers.get(H.TRACEPARENT, ""),
                budget=call.headers.get(H.BUDGET, ""),
            )
            self._maker = CallMaker(self._host.caller, context)
            self._maker.future_class = HandlersFuture
            self._maker.heard = Heard()
            self._maker.sessions = frozenset(call.session for call in self.slot.calls)
            if not begin:
                self._maker.listen()
            elif self._host.caller.on_loop():
                self._begin()
            else:
                self._host.node.loop.call_soon_threadsafe(self._begin)
        return self._maker

    def _begin(self) -> None:
        assert self._maker is not None
        self._maker.listen()
        self._maker.go_on([], replaying=False)

    @property
    def speech(self) -> Speech:
        """Where a model's handler tells what it answers."""
        return self._host.speech

    @property
    def host(self) -> str:
        """Id of the host where it runs."""
        return self._host.id

    @property
    def may_have_begun(self) -> bool:
        """Whether this attempt may have begun before, here or elsewhere."""
        call = self._call
        return call.again or call.preempted > 0 or H.AGAIN in call.headers

    def spent(self, tokens: int) -> None:
        """A model has made so many for the call."""
        self._call.tokens += tokens

    def served(self, model: str, request: ChatRequest | CompletionRequest) -> None:
        """The engine of a model has read a prompt."""
        self._host.prefixes.served(model, request)

    @property
    def rank(self) -> float:
        """The place of its call in the order of mailboxes: unix seconds, the smallest first."""
        return rank(self._call)

    @property
    def purse(self) -> Purse | None:
        """What a model's handler charges its requests to; None: nobody counts them."""
        return self._host.budgets.purse(self._call, self.path)

    @property
    def used(self) -> bool:
        """Whether the handler has made a call."""
        return self._maker is not None

    def woven(self, call: Call, value: bytes) -> bytes | None:
        """The woven form of the outcome of a call, if it has parts that this handler's calls have given."""
        if self._maker is None or self._maker.heard is None or self._call.run != call.run:
            return None
        return self._maker.heard.woven(value)

    async def replay(self) -> None:
        """A call delivered before may have made calls already: take up their outcomes."""
        kind = subjects.children_kind(self.path)
        maker = self.maker(begin=False)
        entries = await self._host.node.journal.read(self._call.run, kind)
        maker.go_on(entries, replaying=True, before=self._call.stored_at)

    def call(
        self, future_id: str, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """Make a call.

        Raises:
            NestedTooDeep: its id would be too long.
        """
        if len(future_id) - len(self._call.run) > LONGEST_PATH:
            depth = len(self._call.path)
            raise NestedTooDeep(
                f"{method.where} was not called: it would be call number {depth} below each other, and its "
                f"id longer than {LONGEST_PATH} characters; call it from the workflow, or end the recursion",
                depth=depth,
                limit=LONGEST_PATH,
            )
        future = cast("HandlersFuture[Any]", self.maker().call(future_id, method, args, kwargs))
        future.slot = self.slot
        return future

    def remember(self, future_id: str, what: str, make: Any) -> Any:
        """A value made once and found again when the call is delivered again."""
        return self.maker().remember(future_id, what, make)

    def cancel(self, future: Future[Any]) -> None:
        """A call of the handler was cancelled."""
        self.maker().cancel(future)

    def abandon(self) -> None:
        """The handler will run again: its calls go on, and it finds them again."""
        if self._maker is not None:
            self._maker.abandon()

    def close(self) -> None:
        """The handler has ended: so do its calls."""
        if self._maker is not None:
            self._maker.stop()


def attempt_path(call: Call) -> str:
    """What the ids of the calls made by this attempt begin with, their last dot left out."""
    return call.id if call.attempt == 1 else f"{call.id}~{call.attempt}"


def batch_path(calls: Sequence[Call]) -> str:
    """The same for a batch: of its own, since the next batch with this call may hold other ones."""
    names = ",".join(f"{call.id}~{call.attempt}" for call in calls)
    tag = int.from_bytes(hashlib.sha256(names.encode()).digest()[:6], "big")
    return f"{attempt_path(calls[0])}~{tag}"
