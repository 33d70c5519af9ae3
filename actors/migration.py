"""Moving sessions from host to host, carried out by the two of them.

The source lets no further call of the session start, waits for the end of the one that runs (or stops it, if
it is ``preemptable``), and hands the session over in one commit that names the destination and the next
epoch. Whoever dies before that commit has moved nothing, and after it the session is the destination's, as
any session is its holder's: nothing else decides. Then the calls that waited here go to the destination's
lane in their order, the destination opens the session, and makers are told. A call that comes here later
goes after them.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from callboard.actors import managed
from callboard.actors.failures import describe
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.errors import (
    CallboardError,
    Fenced,
    MigrationFailed,
    NoDestination,
    SessionUnmovable,
)
from callboard.infra.messages.control import Activate, Migrate, Migrated, Migration, Moved
from callboard.state.shelf import Place

if TYPE_CHECKING:
    from callboard.actors.host import Host
    from callboard.actors.inbound import Call
    from callboard.actors.instance import Instance
    from callboard.state.session import Session

ANSWER = 3.0
"""Seconds after which a host tells how far it is, whatever is under way."""
_TRIES = 5
_PAUSE = 0.1
_AT_ONCE = 16
"""Sessions that are handed over side by side: the first of many are soon there."""
_SHOWN = 5
_GONE = 10_000
_GONE_FOR = 60.0


class _Move:
    """A session on its way.

    Attributes:
        begun: what waits here has been taken; calls: that go after it, in order; moved: how it stands.
        why: as telemetry tells of the calls.
        at_rest: set while no call of it runs here; over: set when it has moved, or will not.
    """

    __slots__ = ("at_rest", "begun", "calls", "moved", "over", "to", "why")

    def __init__(self, session: str, here: str, to: str, why: str) -> None:
        self.to = to
        self.why = why
        self.begun = False
        self.calls: list[Call] = []
        self.moved = Migration(session, here, under_way=True)
        self.at_rest = asyncio.Event()
        self.over = asyncio.Event()


class _Gone(msgspec.Struct, frozen=True):
    """Where a session went from here, and since when (epoch, and seconds of the monotonic clock)."""

    host: str
    epoch: int
    at: float


class Migrations:
    """The sessions that leave a host, and those that come.

    Args:
        host: whose they are.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._moves: dict[Place, _Move] = {}
        self._gone: OrderedDict[Place, _Gone] = OrderedDict()
        self._telling: dict[tuple[str, str], dict[str, int]] = {}
        self._told: set[asyncio.Task[None]] = set()
        self._under_way: set[_Move] = set()
        self._some = asyncio.Semaphore(_AT_ONCE)
        self._log = log.get("migration")

    # -- leaving -----------------------------------------------------------------------------------

    async def migrate(self, asked: Migrate) -> Migrated:
        """Move sessions to another host; tells how each stands when all have, or after some seconds."""
        moves = self._begin(asked.actor, dict.fromkeys(asked.sessions, asked.to))
        waits = [asyncio.ensure_future(move.over.wait()) for move in moves]
        _, left = await asyncio.wait(waits, timeout=ANSWER) if waits else ((), ())
        for wait in left:
            wait.cancel()
        if not left:
            await self._all_told()
        return Migrated(self._host.id, [move.moved for move in moves])

    async def give(self, instance: Instance, to: str, most: int) -> tuple[int, int]:
        """Let an idle host have sessions that wait here for others; how many go, and how many wait still."""
        waiting = [call.session for call in instance.stuck.overdue()] if instance.stuck is not None else []
        self._begin(instance.name, dict.fromkeys(waiting[:most], to), "stolen")
        return len(waiting[:most]), len(waiting[most:])

    def _begin(self, actor: str, sessions: Mapping[str, str], why: str = "migrated") -> list[_Move]:
        """Let no further calls of sessions start here; what has been asked for before goes on.

        Args:
            sessions: each with the host that is to hold it; why: as telemetry tells.
        """
        instance = self._instance(actor)
        moves: dict[str, _Move] = {}
        for session, to in sessions.items():
            place = Place(actor, session)
            move = self._moves.get(place)
            if move is None:
                move = _Move(session, self._host.id, to, why)
                try:
                    self._check(actor, instance, to)
                except CallboardError as error:
                    self._end(move, error)
                else:
                    self._moves[place] = move
                    self._under_way.add(move)
            moves[session] = move
        fresh = {one: move for one, move in moves.items() if not (move.begun or move.over.is_set())}
        if instance is not None and fresh:
            self._stop(instance, fresh)
        return list(moves.values())

    def _stop(self, instance: Instance, moves: Mapping[str, _Move]) -> None:
        """Take the calls that wait, and have those that run end; then each session goes."""
        for call in instance.withdraw(moves.keys()):
            moves[call.session].calls.append(call)
        for session, move in moves.items():
            move.begun = True
            running = instance.running_in(session)
            if not running:
                move.at_rest.set()
            for call in running:
                slot = call.slot
                if slot is not None and slot in instance.slots.preemptable and not slot.stopping:
                    slot.preempt()
            self._host.caller.spawn(self._carry_out(instance, Place(instance.name, session), move))

    def _check(self, actor: str, instance: Instance | None, to: str) -> None:
        watch = self._host.watch
        if instance is None:
            raise MigrationFailed(
                f"host {self._host.id} runs no {actor}; 'callboard actors' lists who does", actor=actor
            )
        stateful = instance.declared.directives.stateful
        if instance.rules is None or (stateful and instance.snapshots is None):
            raise unmovable(actor, stateful=stateful)
        if to != self._host.id and not watch.serves(to, actor):
            raise NoDestination(
                f"host {to} cannot take sessions of {actor}: it does not run it, is about to leave or is not "
                "there; 'callboard actors' lists who does",
                actor=actor,
                host=to,
            )

    def _instance(self, actor: str) -> Instance | None:
        from callboard.actors.instance import Instance

        found = (one for one in self._host.instances() if isinstance(one, Instance) and one.name == actor)
        return next(found, None)

    async def _carry_out(self, instance: Instance, place: Place, move: _Move) -> None:
        try:
            await move.at_rest.wait()
            async with self._some:
                session = await self._handed_over(instance, place, move.to)
        except asyncio.CancelledError:
            self._put_back(instance, place, move)
            self._end(move, MigrationFailed(f"host {self._host.id} ended before", actor=place.actor))
            raise
        except Exception as error:  # noqa: BLE001 - also what an agent's snapshot raises; calls must not stay
            self._put_back(instance, place, move)
            self._end(move, error)
            return
        move.moved.host, move.moved.epoch = session.holder, session.epoch
        if session.holder == self._host.id:
            self._put_back(instance, place, move)
        else:
            self._has_gone(place, session)
            self._host.telemetry.session_moved(*place, session.holder, move.why)
            del self._moves[place]
            move.moved.calls = len(move.calls)
            await self._after(instance, move.calls, session.holder, session.epoch, move.why)
        self._end(move, None)

    def _end(self, move: _Move, error: BaseException | None) -> None:
        self._under_way.discard(move)
        move.moved.under_way = False
        move.moved.error = None if error is None else describe(error)
        move.over.set()
        if error is not None:
            self._log.warning("session_not_moved", session=move.moved.session, to=move.to, reason=str(error))

    def _put_back(self, instance: Instance, place: Place, move: _Move) -> None:
        del self._moves[place]
        for call in move.calls:
            instance.enqueue(call)

    async def _handed_over(self, instance: Instance, place: Place, to: str) -> Session:
        """The session, with its holder: the one that was asked for.

        Raises:
            MigrationFailed: another host holds it.
            Fenced: others were faster, again and again.
        """
        assert instance.rules is not None
        host = self._host
        for tried in range(_TRIES):
            session = await host.states.open(*place, instance.rules)
            if session.holder == to:
                return session
            if session.holder != host.id:
                host.states.forget(*place)  # what others commit is not seen here
                holding = session.holder, place.actor
                if host.watch.serves(*holding) or host.watch.is_leaving(*holding):
                    raise MigrationFailed(
                        f"session {place.session} of {place.actor} is held by host {session.holder}, not by "
                        f"{host.id}: ask that one",
                        actor=place.actor,
                        session=place.session,
                        host=session.holder,
                    )
            await managed.settled(host, session)
            try:
                if instance.snapshots is not None:
                    await instance.snapshots.taken(session)
                await session.take(to)
            except Fenced:
                if tried == _TRIES - 1:
                    raise
            else:
                return session
            finally:
                session.rollback()
        raise AssertionError("unreachable")

    def _has_gone(self, place: Place, session: Session) -> None:
        """A session is held elsewhere from now on."""
        host, actor = self._host, place.actor
        host.states.forget(*place)
        instance = self._instance(actor)
        if instance is not None and instance.snapshots is not None:
            host.caller.spawn(instance.snapshots.left(place.session))
        host.caller.note_holder(actor, place.session, session.holder)
        self._gone[place] = _Gone(session.holder, session.epoch, time.monotonic())
        self._gone.move_to_end(place)
        while len(self._gone) > _GONE:
            self._gone.popitem(last=False)
        if not self._telling:  # what has gone in one turn of the loop is told together
            host.node.loop.call_soon(self._tell_all)
        self._telling.setdefault((actor, session.holder), {})[place.session] = session.epoch

    def _tell_all(self) -> None:
        telling, self._telling = self._telling, {}
        for (actor, to), sessions in telling.items():
            task = self._host.node.loop.create_task(self._tell(actor, to, sessions))
            self._told.add(task)
            task.add_done_callback(self._told.discard)

    async def _tell(self, actor: str, to: str, sessions: dict[str, int]) -> None:
        """Have the destination open the sessions; tell makers. Both only save time: the commit counts."""
        self._log.info(
            "sessions_moved", actor=actor, to=to, count=len(sessions), some=list(sessions)[:_SHOWN]
        )
        connection = self._host.node.connection
        told = msgspec.msgpack.encode(Moved(actor, list(sessions), to))
        connection.publish(subjects.control(), told)
        asked = msgspec.msgpack.encode(Activate(actor, sessions))
        try:
            await connection.request(subjects.control(to), asked, ANSWER)
        except CallboardError as error:
            self._log.warning("destination_silent", host=to, error=str(error))

    async def _all_told(self) -> None:
        if self._telling:
            await asyncio.sleep(0)
        if self._told:
            await asyncio.wait(self._told, timeout=ANSWER)

    # -- calls -------------------------------------------------------------------------------------

    def keeps(self, instance: Instance, call: Call, *, first: bool = False) -> bool:
        """Whether a call does not wait for its turn here: its session is about to go, or has gone.

        Args:
            first: it has been stopped for that, so that it goes ahead of the others.
        """
        if not self._moves and not self._gone:
            return False
        place = Place(instance.name, call.session)
        move = self._moves.get(place)
        if move is not None:
            move.calls.insert(0 if first else len(move.calls), call)
            return True
        gone = self._gone.get(place)
        if gone is None:
            return False
        known = call.headers.get(H.EPOCH, "")
        newer = (
            known.isdigit() and int(known) > gone.epoch
        )  # whoever sent it here has heard of a later holder
        old = time.monotonic() - gone.at > _GONE_FOR
        if newer or old or not self._host.watch.serves(gone.host, instance.name):
            del self._gone[place]
            return False
        self._host.caller.spawn(self._after(instance, [call], gone.host, gone.epoch))
        return True

    def at_rest(self, instance: Instance, session: str) -> None:
        """No call of a session runs here any more."""
        move = self._moves.get(Place(instance.name, session))
        if move is not None:
            move.at_rest.set()

    async def _after(
        self, instance: Instance, calls: Sequence[Call], to: str, epoch: int, why: str = "migrated"
    ) -> None:
        """Have calls follow their session, in order; what cannot be stored is given back."""
        sent = [managed.pass_on(instance, call, to, epoch, why) for call in calls]
        for call, outcome in zip(calls, await asyncio.gather(*sent, return_exceptions=True), strict=True):
            if isinstance(outcome, BaseException):
                self._log.warning("call_not_passed_on", future=call.id, error=str(outcome))
                instance.running.pop(call.key, None)
                call.give_back()

    def fetch(self, instance: Instance, call: Call, holder: str) -> None:
        """A call's session is held by a host that leaves: have it handed over, then it is the call's turn.

        It holds no slot meanwhile.
        """
        call.task = call.slot = None
        self._host.caller.spawn(self._fetched(instance, call, holder))

    async def _fetched(self, instance: Instance, call: Call, holder: str) -> None:
        asked = msgspec.msgpack.encode(Migrate(instance.name, [call.session], self._host.id))
        connection, watch = self._host.node.connection, self._host.watch
        while watch.is_leaving(holder, instance.name):
            try:
                answer = await connection.request(subjects.control(holder), asked, ANSWER + 2.0)
                moved = msgspec.msgpack.decode(answer, type=Migrated).sessions[0]
            except (CallboardError, msgspec.MsgspecError) as error:
                self._log.debug("not_handed_over", host=holder, session=call.session, error=str(error))
                await asyncio.sleep(_PAUSE)
                continue
            if moved.error is not None:
                await asyncio.sleep(_PAUSE)
            if not moved.under_way:
                break
        call.started = 0.0
        instance.enqueue(call)

    # -- coming ------------------------------------------------------------------------------------

    async def activate(self, asked: Activate) -> None:
        """Open sessions that have come."""
        instance = self._instance(asked.actor)
        if instance is None or instance.rules is None:
            return
        opening = [self._open(instance, *one) for one in asked.sessions.items()]
        for outcome in await asyncio.gather(*opening, return_exceptions=True):
            if isinstance(outcome, BaseException):  # its first call opens it
                self._log.warning("session_not_opened", actor=asked.actor, error=str(outcome))

    async def _open(self, instance: Instance, name: str, epoch: int) -> None:
        assert instance.rules is not None
        place = Place(instance.name, name)
        gone = self._gone.get(place)
        if gone is not None and gone.epoch < epoch:
            del self._gone[place]
        self._host.caller.note_holder(*place, self._host.id)
        self._host.states.outdated(*place, epoch)
        session = await self._host.states.open(*place, instance.rules)
        if instance.snapshots is not None and session.holder == self._host.id:
            await instance.snapshots.restored(session)

    # -- draining ----------------------------------------------------------------------------------

    def hand_all_over(self) -> None:
        """Begin to move what may not simply be taken by others: busy sessions, and those kept in the process.

        An idle session with managed state is let go: its next call is its next holder's.
        """
        from callboard.actors.instance import Instance

        for instance in self._host.instances():
            if not isinstance(instance, Instance) or instance.rules is None:
                continue
            kept = [] if instance.snapshots is None else list(instance.snapshots.here)
            loads = self._loads(instance)
            moving: dict[str, str] = {}
            for session in (*instance.busy_sessions(), *kept) if loads else ():
                if session not in moving:
                    moving[session] = to = min(loads, key=lambda host: (loads[host], host))
                    loads[to] += 1
            self._begin(instance.name, moving)

    def _loads(self, instance: Instance) -> dict[str, int]:
        """How busy other hosts are that can take sessions."""
        watch, name = self._host.watch, instance.name
        hosts = [host for host in watch.alive if host != self._host.id and watch.serves(host, name)]
        infos = {host: watch.alive[host].instances[name] for host in hosts}
        return {host: info.busy + info.mailbox for host, info in infos.items()}

    async def finished(self, timeout: float) -> None:
        """Wait until all that has begun to move has moved."""
        waits = [asyncio.ensure_future(move.over.wait()) for move in self._under_way]
        if waits:
            _, left = await asyncio.wait(waits, timeout=timeout)
            for wait in left:
                wait.cancel()
        await self._all_told()


def unmovable(actor: str, *, stateful: bool) -> SessionUnmovable:
    """The error for an agent whose sessions stay where they are."""
    if stateful:
        return SessionUnmovable(
            f"{actor} is stateful, so what it keeps for a session stands in its process: give it "
            "'snapshot(self, session)', which returns that, and 'restore(self, session, value)'",
            actor=actor,
        )
    return SessionUnmovable(
        f"{actor} keeps nothing for sessions: its calls go to any host as it is", actor=actor
    )
