"""Taking over from the dead: noticing that a host is gone, and giving its calls back on its behalf.

Every host hears every heartbeat. When one stops, one of those left (a claim in the registry decides
which) naks what the dead host held: first what its last heartbeat listed, then what it was given after
that. The second part is found by elimination: it was delivered, it is still in the stream, and none of
the living holds it. If one of the living does not answer, that is tried again, and in the end left to the
ack wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors import registry
from callboard.actors.naming import Names
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.errors import CallboardError, StoreRefused
from callboard.infra.messages.control import Holds, HoldsQuery
from callboard.infra.messages.registry import Pulse, Takeover
from callboard.infra.topology import SIGNALS, TIMERS

if TYPE_CHECKING:
    from callboard.actors.host import Host

_CHECK = 0.2
_RETRY = 3.0
_RENEWALS = 3
_LOOK = 1.5
_LINGER = (1.0, 2.0, 4.0, 8.0, 16.0)
_PAGE = 512
_REMEMBERED = 10_000
_TURN = 0.3
_decode_holds = msgspec.msgpack.Decoder(Holds).decode


class Watch:
    """Watches the heartbeats of all hosts.

    Args:
        host: who watches.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._node = host.node
        self.alive: dict[str, Pulse] = {}
        """The last heartbeat of every host that is not known to be gone."""
        self.names = Names(self.alive)
        self._heard: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._sid = 0
        self._since = time.monotonic()
        self._looked = 0.0
        self._claimed: dict[str, float] = {}
        self._taking: set[str] = set()
        self._foreign: dict[str, tuple[int, float]] = {}
        self._given_back: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._sweeping = asyncio.Lock()
        self._reconnected = False
        self._log = log.get("takeover")

    async def start(self) -> None:
        """Hear what hosts there are, then watch. Idempotent."""
        if self._task is not None:
            return
        self._sid = self._node.connection.subscribe(subjects.registry("host.*"), self._on_pulse)
        self._node.connection.on_reconnect(self._on_reconnect)
        for stored in await self._node.reader.read(subjects.REGISTRY, subjects.registry("host.*")):
            if stored.body:
                self._note(stored.subject, stored.body)
        self._task = self._node.loop.create_task(self._watch())

    def stop(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._node.connection.unsubscribe(self._sid)

    def takes_calls(self, host: str) -> bool:
        """Whether a host lives and is not about to leave."""
        pulse = self.alive.get(host)
        return pulse is not None and not pulse.draining

    def serves(self, host: str, actor: str) -> bool:
        """Whether a host lives, stays, and runs an actor, for which it does not stand by and is not down."""
        pulse = self.alive.get(host)
        return pulse is not None and pulse.serves(actor)

    def is_leaving(self, host: str, actor: str) -> bool:
        """Whether a host that runs an actor lives and takes no more calls of it; those that run may end."""
        pulse = self.alive.get(host)
        info = None if pulse is None else pulse.instances.get(actor)
        return pulse is not None and info is not None and (pulse.draining or info.standby)

    def stands_idle(self, host: str, actor: str) -> bool:
        """Whether a living host stands by for an actor, and no call of it runs there."""
        pulse = self.alive.get(host)
        info = None if pulse is None else pulse.instances.get(actor)
        return info is not None and info.standby and info.busy == 0

    def serving(self, actor: str) -> list[str]:
        """Ids of the living hosts that run an actor, the longest running first, those that are down last."""
        found = [p for p in self.alive.values() if actor in p.instances and not p.draining]
        return [p.host for p in sorted(found, key=lambda p: (p.instances[actor].down, p.started, p.host))]

    def eldest(self) -> str:
        """Id of the living host that has run the longest: it does what one of them has to do."""
        staying = [(p.started, p.host) for p in self.alive.values() if not p.draining]
        return min(staying, default=(0.0, ""))[1]

    def _on_pulse(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        if data:
            self._note(subject.decode("utf-8", "replace"), data)
        else:  # the host has left in good order
            host = subject.decode("utf-8", "replace").rpartition(".")[2]
            self.alive.pop(host, None)
            self._heard.pop(host, None)
            self._claimed.pop(host, None)
            self._foreign.pop(host, None)
            self._host.stealing.left(host)
            self._host.prefixes.loads.left(host)

    def _on_reconnect(self) -> None:
        self._reconnected = True

    def _note(self, subject: str, body: bytes) -> None:
        pulse = registry.pulse(subject.rpartition(".")[2], body)
        if pulse is not None:
            self.alive[pulse.host] = pulse
            self.names.heard(pulse)
            self._heard[pulse.host] = time.monotonic()
            self._host.stealing.heard(pulse)
            self._host.prefixes.loads.heard(pulse)

    async def _watch(self) -> None:
        dead_after = self._node.settings.dead_after
        while True:
            await asyncio.sleep(_CHECK)
            now = time.monotonic()
            # Who does not hear even itself may not call others dead.
            if now - self._heard.get(self._host.id, 0.0) > dead_after / 2:
                self._since = now
            if now - self._since < dead_after:
                continue
            if self._reconnected:
                self._reconnected = False
                self._host.caller.spawn(self._recover())
            if now - self._looked > _LOOK and self.eldest() == self._host.id:
                self._looked = now
                self._host.caller.spawn(self._host.lanes.look())
            for host in [h for h, at in self._heard.items() if now - at > dead_after]:
                if host not in self._taking and now - self._claimed.get(host, -_RETRY) >= _RETRY:
                    self._claimed[host] = now
                    self._host.caller.spawn(self._take_over(self.alive[host]))

    async def _take_over(self, dead: Pulse) -> None:
        silent = time.monotonic() - self._heard.get(dead.host, 0.0)
        if not await self._claim(dead.host):
            return
        self._taking.add(dead.host)
        renewing = self._node.loop.create_task(self._renew(dead.host))
        try:
            await self._clear_up(dead, silent)
        finally:
            renewing.cancel()
            self._taking.discard(dead.host)
        self._host.caller.spawn(self._linger(dead))
        await asyncio.sleep(_RETRY)  # by then nobody takes the host for alive any more
        try:
            await self.empty_lane(dead.host, dead.name)
        finally:
            await self._withdraw(dead.host)

    async def _withdraw(self, host: str) -> None:
        """Claim a host no more, and forget it."""
        self._claimed.pop(host, None)
        self._foreign.pop(host, None)
        await self._node.store.stored(subjects.registry(f"takeover.{host}"), b"", _PURGE)

    async def _renew(self, host: str) -> None:
        """Keep the claim on a host alive: what it held may be many calls, and is to be given back once."""
        while True:
            await asyncio.sleep(_RETRY / _RENEWALS)
            claim = msgspec.msgpack.encode(Takeover(self._host.id, time.time()))
            try:
                await self._node.store.stored(subjects.registry(f"takeover.{host}"), claim)
            except StoreRefused as error:
                self._log.warning("claim_not_renewed", host=host, error=str(error))

    async def _clear_up(self, dead: Pulse, silent: float) -> None:
        """Give back what a dead host held, and take it out of the registry."""
        given_back = 0
        for key, sequences in dead.inflight.items():
            given_back += await self._nak(key, sequences)
        self._log.warning("host_dead", host=dead.host, silent_s=round(silent, 2), calls_given_back=given_back)
        await self._sweep(dead)
        await self.empty_lane(dead.host, dead.name)
        await self._node.store.stored(subjects.registry(f"host.{dead.host}"), b"", _PURGE)

    async def _linger(self, dead: Pulse) -> None:
        """Look again for what a dead host was given.

        One that stands still with its connection open is given calls until its requests for them end. And
        one that died together with others was looked for while those could not be asked.
        """
        for wait in _LINGER:
            await asyncio.sleep(wait)
            if dead.host in self.alive:
                return
            await self._sweep(msgspec.structs.replace(dead, inflight={}), again=True)

    async def _recover(self) -> None:
        """Look for what was lost with the connection: calls on their way to this host, and its acks.

        After a loss of the server every host does so, one after the other, so that a call which one has
        found is delivered again before the next one looks. While one of them cannot be asked, perhaps since
        it has died together with the server, nobody can tell what is lost: then it is looked for again.
        """
        own = self.alive.get(self._host.id)
        if own is None:
            return
        hosts = sorted(self.alive)
        await asyncio.sleep(_TURN * hosts.index(own.host))
        for wait in (*_LINGER, 0.0):
            if await self._sweep(msgspec.structs.replace(own, inflight={}), again=True):
                return
            await asyncio.sleep(wait)

    async def empty_lane(self, host: str, name: str = "") -> None:
        """Move the calls that were addressed to a host to the shared lane, for good.

        Args:
            name: that the host had; if another has it now, that one gets the calls.
        """
        topology, consumer, own = self._node.topology, f"host_{host}", host == self._host.id
        info = {} if own else await topology.api(f"CONSUMER.INFO.{subjects.CALLS}.{consumer}")
        read = int(info.get("delivered", {}).get("stream_seq", 0))
        await topology.delete_consumer(subjects.CALLS, consumer)
        to = self.names.find(name) if name else subjects.ANY
        await self._host.lanes.move(host, to=to, read=read)

    async def _claim(self, host: str) -> bool:
        """Whether this host is the one to act; a claim whose holder has done nothing for long is void."""
        subject = subjects.registry(f"takeover.{host}")
        stored = await self._node.reader.last(subjects.REGISTRY, subject)
        after = stored.sequence if stored else 0
        if host not in self._heard:
            return False  # another has taken over already
        if stored and stored.body and not self._is_void(host, stored.sequence):
            return False
        claim = Takeover(self._host.id, time.time())
        head = H.encode([(H.EXPECTED_SEQUENCE, str(after))])
        try:
            await self._node.store.stored(subject, msgspec.msgpack.encode(claim), head)
        except StoreRefused:
            return False
        silent = self._heard.get(host, 0.0) + self._node.settings.dead_after < time.monotonic()
        if not silent:  # it was heard meanwhile
            await self._withdraw(host)
        return silent

    def _is_void(self, host: str, sequence: int) -> bool:
        """Whether a claim has been there for too long, by this host's own watch: clocks may differ."""
        now = time.monotonic()
        known, since = self._foreign.get(host, (0, now))
        if known != sequence:
            since = now
        self._foreign[host] = sequence, since
        return now - since >= _RETRY

    async def _nak(self, key: str, sequences: list[int]) -> int:
        """Give messages of a consumer back on behalf of a dead host."""
        stream, _, consumer = key.partition(".")
        info = await self._node.topology.api(f"CONSUMER.INFO.{stream}.{consumer}")
        delivered = info.get("delivered", {}).get("consumer_seq", 0)
        for sequence in sequences:
            self._node.connection.publish(subjects.ack(stream, consumer, sequence, delivered), b"-NAK")
            self._given_back[key, sequence] = None
        while len(self._given_back) > _REMEMBERED:
            self._given_back.popitem(last=False)
        return len(sequences) if delivered else 0

    # -- what the last heartbeat did not list ------------------------------------------------------

    async def _sweep(self, dead: Pulse, *, again: bool = False) -> bool:
        """Look at all consumers; whether nothing was left to look at."""
        async with self._sweeping:  # what one sweep has found is held by somebody when the next one looks
            work = [self._sweep_one(dead, *where, again=again) for where in self._consumers(dead)]
            return all(await asyncio.gather(*work))

    async def _sweep_one(self, dead: Pulse, stream: str, consumer: str, *, again: bool) -> bool:
        try:
            return await self._sweep_consumer(dead, stream, consumer, again=again)
        except CallboardError as error:
            self._log.warning("sweep_incomplete", consumer=consumer, error=str(error))
            return False

    def _consumers(self, dead: Pulse) -> list[tuple[str, str]]:
        found = [(subjects.CALLS, f"host_{dead.host}")] if dead.host == self._host.id else []
        for actor, info in dead.instances.items():
            if info.workflow:
                found.append((subjects.REQUESTS, f"{actor}_requests"))
            else:
                found += [(subjects.CALLS, f"{actor}_any_{band}") for band in subjects.BANDS]
        if any(info.workflow for info in dead.instances.values()):
            found += [(subjects.CALLS, TIMERS), (subjects.RUNS, SIGNALS)]
        return found

    async def _sweep_consumer(self, dead: Pulse, stream: str, consumer: str, *, again: bool) -> bool:
        orphans = await self._orphans(dead, stream, consumer)
        if orphans and again:
            # Perhaps they were only on their way from whoever gave them back to whoever has them now.
            await asyncio.sleep(_CHECK)
            still = await self._orphans(dead, stream, consumer)
            orphans = None if still is None else [sequence for sequence in orphans if sequence in still]
        if orphans:
            await self._nak(f"{stream}.{consumer}", orphans)
            self._log.info("orphans_given_back", consumer=consumer, count=len(orphans))
        return orphans is not None

    async def _orphans(self, dead: Pulse, stream: str, consumer: str) -> list[int] | None:
        """Sequences that were delivered and are held by nobody who lives; None if one cannot be asked."""
        info = await self._node.topology.api(f"CONSUMER.INFO.{stream}.{consumer}")
        if not info.get("num_ack_pending"):
            return []
        last = info["delivered"]["stream_seq"]
        key = f"{stream}.{consumer}"
        listed = set(dead.inflight.get(key, ()))
        # While nobody asks for calls, those that were given back wait in the consumer, and are not lost.
        asked_for = bool(info.get("num_waiting"))
        held = await self._held_by_others(dead.host, stream, consumer)
        if held is None:
            return None
        subject = info["config"]["filter_subject"]
        first = info["ack_floor"]["stream_seq"]
        orphans: list[int] = []
        while first < last and (stored := await self._node.reader.read(stream, subject, first, _PAGE)):
            first = stored[-1].sequence
            orphans += [
                s.sequence
                for s in stored
                if s.sequence <= last
                and s.sequence not in held
                and s.sequence not in listed
                and (asked_for or (key, s.sequence) not in self._given_back)
            ]
        return orphans

    async def _held_by_others(self, dead: str, stream: str, consumer: str) -> set[int] | None:
        """Sequences that living hosts hold, or None if one of them cannot be asked.

        What another dead host held counts as held: it is given back when that host's turn has come.
        """
        lane = self._host.lane
        if lane is not None and lane.consumer == consumer:
            return set(lane.held)  # nobody else pulls from it
        query = msgspec.msgpack.encode(HoldsQuery(stream, consumer))
        silent = time.monotonic() - self._node.settings.dead_after
        others = [pulse for pulse in self.alive.values() if pulse.host != dead or dead == self._host.id]
        hosts = [pulse.host for pulse in others if self._heard[pulse.host] > silent]
        lost = [pulse.inflight.get(f"{stream}.{consumer}", ()) for pulse in others if pulse.host not in hosts]
        answers: list[Any] = await asyncio.gather(
            *(self._node.connection.request(subjects.control(h), query, 1.0) for h in hosts),
            return_exceptions=True,
        )
        if any(isinstance(answer, BaseException) for answer in answers):
            return None
        held = {sequence for answer in answers for sequence in _decode_holds(answer).sequences}
        return held.union(*lost)


_PURGE = H.encode([("KV-Operation", "PURGE"), ("Nats-Rollup", "sub")])
