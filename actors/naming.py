"""Names of hosts: a host has a new id each time it starts, and may be given a name that stays.

Routes may give the name. Everything else goes by the id, of which there is never a second one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import Fenced, HostNameTaken
from callboard.infra.messages.registry import Named, Pulse
from callboard.state.journal import read_entry

if TYPE_CHECKING:
    from callboard.actors.node import Node

ID_PREFIX = "h-"
"""What the ids of hosts begin with, and no name."""
_decode = msgspec.msgpack.Decoder(Named).decode


def checked(name: str) -> str:
    """A name for a host; an empty one is none.

    Raises:
        NameInvalid: it cannot be used in subjects, or looks like an id.
    """
    if name.startswith(ID_PREFIX):
        raise subjects.NameInvalid(
            f"no host can be named {name!r}: ids begin with {ID_PREFIX}", what="host", value=name
        )
    return subjects.token("host", name) if name else ""


async def claim(node: Node, name: str, host: str) -> int:
    """Take a name for a host. If another one had it, this listens for ``dead_after`` whether that lives.

    Returns:
        what :func:`confirm` needs.

    Raises:
        HostNameTaken: it lives, or was faster.
    """
    stored = await node.reader.last(subjects.REGISTRY, _subject(name))
    known = read_entry(_decode, stored.body) if stored else None
    if known is not None and known.host != host and await _beats(node, known.host):
        raise _taken(name, known.host)
    return await _write(node, name, host, stored.sequence if stored else 0)


async def confirm(node: Node, name: str, host: str, claimed: int) -> None:
    """Keep a name, once the host can be heard: of two that claim it at once, one does not hear the other.

    Args:
        claimed: what :func:`claim` has given.

    Raises:
        HostNameTaken: another host has claimed it meanwhile.
    """
    await _write(node, name, host, claimed)


async def _write(node: Node, name: str, host: str, after: int) -> int:
    head = H.encode([(H.EXPECTED_SEQUENCE, str(after))])
    try:
        return await node.store.stored(_subject(name), msgspec.msgpack.encode(Named(host)), head)
    except Fenced:
        last = await node.reader.last(subjects.REGISTRY, _subject(name))
        now = read_entry(_decode, last.body) if last else None
        if last is None or now is None or now.host != host:
            raise _taken(name, now.host if now else "") from None
        return last.sequence  # its own entry, sent again after a lost ack


def _subject(name: str) -> str:
    return subjects.registry(f"name.{name}")


def _taken(name: str, host: str) -> HostNameTaken:
    return HostNameTaken(
        f"host {host} has the name {name}, and lives: end it first, or give another name",
        name=name,
        host=host,
    )


async def _beats(node: Node, host: str) -> bool:
    """Whether a host lives."""
    subject = subjects.registry(f"host.{host}")
    if not subjects.is_token(host):
        return False
    heard: asyncio.Future[bool] = node.loop.create_future()

    def on_beat(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        if not heard.done():
            heard.set_result(bool(data))  # an empty one says that it has left

    sid = node.connection.subscribe(subject, on_beat)
    try:
        last = await node.reader.last(subjects.REGISTRY, subject)
        if last is None or not last.body:
            return False
        async with asyncio.timeout(node.settings.dead_after):
            return await heard
    except TimeoutError:
        return False
    finally:
        node.connection.unsubscribe(sid)


class Names:
    """Which host has which name, as its heartbeat tells: of several the one that was started last.

    Args:
        alive: the heartbeats of all hosts, by id.
    """

    def __init__(self, alive: dict[str, Pulse]) -> None:
        self._alive = alive
        self._hosts: dict[str, str] = {}

    def heard(self, pulse: Pulse) -> None:
        """A heartbeat has come."""
        if not pulse.name:
            return
        known = self._alive.get(self._hosts.get(pulse.name, ""))
        if known is None or (known.started, known.host) <= (pulse.started, pulse.host):
            self._hosts[pulse.name] = pulse.host

    def find(self, host: str) -> str:
        """The id of the host that this is the id or the name of; itself if there is none."""
        return host if host in self._alive else self._hosts.get(host, host)
