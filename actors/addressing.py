"""A call as a message: its subject and headers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors.commit_acks import COMMITS
from callboard.actors.copies import KNOWN_IDS
from callboard.infra import headers as H
from callboard.infra import subjects

if TYPE_CHECKING:
    from callboard.actors.declared import Method
    from callboard.actors.future import Future
    from callboard.actors.values import Encoded

_DEPS_LIMIT = 64 * 1024


class CallContext(msgspec.Struct, frozen=True, kw_only=True):
    """What all calls of one maker have in common.

    Attributes:
        run, session, workflow: whose calls they are.
        creator: who makes them: a host id.
        parent: id of the call whose handler makes them; empty for the workflow itself.
        path: ``actor.method`` of each call from the workflow down to the maker.
        deadline: unix seconds; 0 for none.
        priority: of all calls.
        stage: depth of the maker in the run.
        trace: W3C ``traceparent``, passed on; budget: header of what they are charged to, likewise.
    """

    run: str
    session: str
    workflow: str
    creator: str
    parent: str = ""
    path: tuple[str, ...] = ()
    deadline: float = 0.0
    priority: int = 0
    stage: int = 0
    trace: str = ""
    budget: str = ""


class Addressing:
    """Addresses the calls of one maker.

    Args:
        context: what they have in common; is_alive: whether a host takes calls.

    Attributes:
        before: unix seconds, since when somebody may have made them before; 0: nobody has.
    """

    def __init__(self, context: CallContext, is_alive: Callable[[str], bool]) -> None:
        self.before = 0.0
        self._context = context
        self._is_alive = is_alive
        self._common = ""

    def addressed(self, future: Future[Any], encoded: Encoded, message_id: str) -> tuple[str, bytes]:
        """Subject and headers of a call."""
        head = self._head(future.method)
        extra = f"Cb-Future: {future.id}\r\nNats-Msg-Id: {message_id}\r\nCb-Stage: {future.stage}\r\n"
        deps = ",".join(future.deps)
        if 0 < len(deps) <= _DEPS_LIMIT:  # of more the journal knows
            extra += f"Cb-Deps: {deps}\r\n"
        if future.session != self._context.run:
            extra += f"{H.SESSION}: {future.session}\r\n"
        if encoded.blobs or encoded.woven:
            extra += _references(encoded)
        if future.priority:
            extra += f"Cb-Priority: {future.priority}\r\n"
        if future.ranked:
            extra += f"{H.RANKED}: {future.ranked}\r\n"
        if self.before and time.time() - self.before > KNOWN_IDS:
            extra += f"{H.AGAIN}: 1\r\n"
        lane = future.executor if future.executor and self._is_alive(future.executor) else subjects.ANY
        if lane != subjects.ANY:
            extra += _slated(future)
        subject = subjects.call(future.method.actor, lane, band_of(future.priority))
        return subject, f"{head}{extra}\r\n".encode()

    def _head(self, method: Method) -> str:
        """The part of the headers that all calls of a method by this maker share."""
        if not self._common:
            c = self._context
            items = [(H.RUN, c.run), (H.WORKFLOW, c.workflow), (H.CREATOR, c.creator)]
            if c.deadline:
                items.append((H.DEADLINE, f"{c.deadline:.3f}"))
            if len(c.path) > 1:
                items.append((H.PATH, ",".join(c.path)))
            if c.budget:
                items.append((H.BUDGET, c.budget))
            if c.trace:
                items.append((H.TRACEPARENT, c.trace))
            self._common = H.encode(items)[:-2].decode()
        hears = f"{H.HEARS}: {COMMITS}\r\n" if method.managed else ""
        return f"{self._common}{H.METHOD}: {method.name}\r\n{hears}"


def _references(encoded: Encoded) -> str:
    """Headers of a call whose arguments stand elsewhere, or a part of them."""
    extra = ""
    if encoded.blobs:
        extra += f"{H.BLOBS}: {','.join(encoded.blobs)}\r\n"
    if encoded.woven:
        extra += f"{H.WOVEN}: {encoded.woven}\r\n"
    if encoded.size:
        extra += f"{H.SIZE}: {encoded.size}\r\n"
    return extra


def _slated(future: Future[Any]) -> str:
    """The headers that say where it was sent, and why."""
    said = {H.EXECUTOR: future.executor, H.POLICY: future.policy, H.PLACED: future.placed}
    return "".join(f"{name}: {value}\r\n" for name, value in said.items() if value)


def band_of(priority: int) -> int:
    """The band of a priority: above 0 the urgent one, below 0 the patient one."""
    return 1 if priority == 0 else 0 if priority > 0 else 2
