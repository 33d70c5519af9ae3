"""What the doctor looks at: server, streams, consumers, who is there, clocks and room. Reads only."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from callboard.actors.admitting import read_limits
from callboard.actors.entries import STREAM
from callboard.actors.node import Node
from callboard.infra import subjects
from callboard.infra.connection import Connection
from callboard.infra.direct import DirectReader, Stored, timestamp
from callboard.infra.messages.policy import Admission
from callboard.infra.messages.registry import ActorInfo, Pulse
from callboard.infra.settings import Settings
from callboard.infra.topology import Topology, declared
from callboard.state.journal import read_entries

_SLACK = 1.0

_decode_pulse = msgspec.msgpack.Decoder(Pulse).decode
_decode_actor = msgspec.msgpack.Decoder(ActorInfo).decode


class Look(msgspec.Struct):
    """All that the checks look at.

    Attributes:
        server: what the server tells of itself.
        account: the JetStream account's use and limits.
        streams: what the server says of each declared stream that exists.
        consumers: names of the consumers of calls and requests.
        actors: as announced; alive, vanished: hosts by whether they told of themselves lately.
        foreign: subjects in the registry where there is what no host writes.
        limits: of how many requests are accepted.
        clock: seconds by which the server's clock is ahead of ours; clock_error: give or take.
        disk: where a server on this machine stores, and the bytes that are free there.
    """

    settings: Settings
    server: dict[str, Any]
    account: dict[str, Any] = {}
    streams: dict[str, dict[str, Any]] = {}
    consumers: list[str] = []
    actors: list[ActorInfo] = []
    alive: list[Pulse] = []
    vanished: list[Pulse] = []
    foreign: list[str] = []
    limits: list[Admission] = []
    clock: float = 0.0
    clock_error: float = 0.0
    disk: tuple[str, int] | None = None

    def serving(self, actor: str) -> list[Pulse]:
        """The living hosts that run an actor."""
        if actor == subjects.WAKER:
            return [host for host in self.alive if any(i.workflow for i in host.instances.values())]
        return [host for host in self.alive if actor in host.instances]


async def look(settings: Settings) -> Look:
    """Read everything that the checks need."""
    connection = Connection(settings, f"doctor-{subjects.new_id()[-8:].lower()}")
    await connection.open()
    try:
        seen = Look(settings, connection.client.info, disk=_local_disk(settings.nats_url))
        topology = Topology(connection, settings)
        begun = time.time()
        seen.account = await topology.api("INFO")
        seen.streams = await _streams(topology, settings)
        if seen.streams:
            seen.clock, seen.clock_error = await _clock(topology, next(iter(seen.streams)))
        seen.consumers = [
            name
            for stream in (subjects.CALLS, subjects.REQUESTS)
            for name in await _consumers(topology, stream)
        ]
        reader = DirectReader(connection)
        if subjects.REGISTRY in seen.streams:
            await _registry(seen, reader, begun)
        if STREAM in seen.streams:
            seen.limits = await read_limits(reader)
    finally:
        await connection.close()
    return seen


async def _streams(topology: Topology, settings: Settings) -> dict[str, dict[str, Any]]:
    names = list(declared(settings))  # the same on every server
    wanted = {"subjects_filter": ">"}
    counted = {subjects.CALLS, subjects.REQUESTS}
    found = await asyncio.gather(
        *(topology.api(f"STREAM.INFO.{name}", wanted if name in counted else None) for name in names)
    )
    return {name: info for name, info in zip(names, found, strict=True) if "config" in info}


async def _clock(topology: Topology, stream: str) -> tuple[float, float]:
    begun = time.time()
    there = timestamp(str((await topology.api(f"STREAM.INFO.{stream}")).get("ts", "")))
    ended = time.time()
    return there - (begun + ended) / 2, (ended - begun) / 2


async def _consumers(topology: Topology, stream: str) -> list[str]:
    found: list[str] = []
    while True:
        answer = await topology.api(f"CONSUMER.NAMES.{stream}", {"offset": len(found)})
        names = answer.get("consumers") or []
        found += names
        if not names or len(found) >= answer.get("total", 0):
            return found


async def _registry(seen: Look, reader: DirectReader, now: float) -> None:
    actors = _told(await reader.read(subjects.REGISTRY, subjects.registry("actor.*")))
    hosts = _told(await reader.read(subjects.REGISTRY, subjects.registry("host.*")))
    seen.actors = [actor for _, actor in read_entries(_decode_actor, actors)]
    pulses = list(read_entries(_decode_pulse, hosts))
    seen.alive, seen.vanished = _by_life(pulses, now + seen.clock, seen.settings)
    known = {actor.name for actor in seen.actors} | {pulse.host for _, pulse in pulses}
    seen.foreign = [one.subject for one in actors + hosts if one.subject.rpartition(".")[2] not in known]


async def living(node: Node) -> list[Pulse]:
    """The hosts that have told of themselves lately, by the server's clock."""
    stored = await node.reader.read(subjects.REGISTRY, subjects.registry("host.*"))
    now = timestamp(str((await node.topology.api(f"STREAM.INFO.{subjects.REGISTRY}")).get("ts", "")))
    return _by_life(read_entries(_decode_pulse, stored), now, node.settings)[0]


def _told(stored: Iterable[Stored]) -> list[Stored]:
    """What has left says so with nothing."""
    return [one for one in stored if one.body]


def _by_life(
    pulses: Iterable[tuple[Stored, Pulse]], now: float, settings: Settings
) -> tuple[list[Pulse], list[Pulse]]:
    """The hosts that live, and those that have vanished."""
    alive: list[Pulse] = []
    vanished: list[Pulse] = []
    for one, pulse in pulses:
        lives = one.at > now - settings.dead_after - _SLACK
        (alive if lives else vanished).append(pulse)
    return alive, vanished


def _local_disk(url: str) -> tuple[str, int] | None:
    """Where the server stores, if it runs on this machine and stores below its working directory."""
    import psutil

    address = urlsplit(url)
    if address.hostname not in {"127.0.0.1", "localhost", "::1"}:
        return None
    with contextlib.suppress(psutil.Error, OSError):
        for found in psutil.net_connections("tcp"):
            if (
                found.status == psutil.CONN_LISTEN
                and getattr(found.laddr, "port", 0) == address.port
                and found.pid
            ):
                folder = Path(psutil.Process(found.pid).cwd())
                if (folder / "jetstream").is_dir():
                    return str(folder), shutil.disk_usage(folder).free
    return None
