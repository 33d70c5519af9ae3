"""The registry: what actors there are, told by their hosts in bucket ``cb_registry``."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors.declared import AgentClass, Declaration, Method, code_version
from callboard.actors.directives import Directives
from callboard.infra import subjects
from callboard.infra.messages.registry import ActorInfo, MethodInfo, Pulse
from callboard.infra.together import together

if TYPE_CHECKING:
    from callboard.actors.node import Node

_DEFAULTS = msgspec.structs.asdict(Directives())
_decode_actor = msgspec.msgpack.Decoder(ActorInfo).decode
_decode_pulse = msgspec.msgpack.Decoder(Pulse).decode


def describe(declared: Declaration) -> ActorInfo:
    """What the registry holds of a declaration."""
    subject = declared.cls if isinstance(declared, AgentClass) else declared.function
    return ActorInfo(
        name=declared.name,
        kind=declared.kind,
        version=code_version(declared),
        methods=[_method(m) for m in declared.methods.values()],
        directives=_given(declared.directives),
        doc=inspect.getdoc(subject) or "",
    )


def _method(method: Method) -> MethodInfo:
    arguments, result = method.signature.schemas()
    return MethodInfo(
        name=method.name,
        arguments=arguments,
        result=result,
        directives=_given(method.directives)
        | ({"managed": True} if method.managed else {})
        | ({"original": method.original} if method.original else {}),
        doc=inspect.getdoc(method.function) or "",
    )


def _given(directives: Directives) -> dict[str, Any]:
    values = msgspec.structs.asdict(directives)
    return {name: value for name, value in values.items() if value != _DEFAULTS[name]}


async def announce(node: Node, declarations: Iterable[Declaration]) -> None:
    """Write what differs from what the registry holds already."""
    await together(_announce(node, declared) for declared in declarations)


async def _announce(node: Node, declared: Declaration) -> None:
    subject = subjects.registry(f"actor.{declared.name}")
    body = msgspec.msgpack.encode(describe(declared))
    known = await node.reader.last(subjects.REGISTRY, subject)
    if known is None or known.body != body:
        await node.store.stored(subject, body)


async def actors(node: Node) -> list[ActorInfo]:
    """All actors ever announced, by name."""
    from callboard.state.journal import read_entries

    stored = await node.reader.read(subjects.REGISTRY, subjects.registry("actor.*"))
    return sorted((actor for _, actor in read_entries(_decode_actor, stored)), key=lambda a: a.name)


async def actor(node: Node, name: str) -> ActorInfo | None:
    """What an actor has announced; None if there never was one of this name."""
    from callboard.state.journal import read_entry

    stored = await node.reader.last(subjects.REGISTRY, subjects.registry(f"actor.{name}"))
    return None if stored is None else read_entry(_decode_actor, stored.body)


def pulse(host: str, body: bytes) -> Pulse | None:
    """The heartbeat of a host; None for what is none, whoever has put it there.

    Its names are used in subjects.
    """
    try:
        read = _decode_pulse(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    names = [*read.instances, *(name for key in read.inflight for name in key.partition(".")[::2])]
    return read if read.host == host and all(map(subjects.is_token, (host, *names))) else None


async def hosts(node: Node) -> list[Pulse]:
    """The last heartbeat of every host that has not left; dead ones are removed by who takes over."""
    from callboard.state.journal import read_entries

    stored = await node.reader.read(subjects.REGISTRY, subjects.registry("host.*"))
    return [pulse for _, pulse in read_entries(_decode_pulse, stored)]
