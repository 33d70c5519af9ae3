"""The usual causes of trouble, looked for before anyone asks."""

from __future__ import annotations

from callboard.actors.node import Node
from callboard.infra import subjects
from callboard.infra.direct import DirectReader, timestamp
from callboard.infra.messages.registry import Pulse
from callboard.infra.topology import Topology

import msgspec

_REGISTRY = f"KV_{subjects.REGISTRY_BUCKET}"
_SLACK = 1.0
_decode_pulse = msgspec.msgpack.Decoder(Pulse).decode


async def living(node: Node) -> list[Pulse]:
    """The hosts that have told of themselves lately, by the server's clock."""
    stored = await node.reader.read(_REGISTRY, subjects.registry("host.*"))
    now = await server_time(node.topology)
    oldest = now - node.settings.dead_after - _SLACK
    return [_decode_pulse(one.body) for one in stored if one.body and one.at > oldest]


async def server_time(topology: Topology) -> float:
    """The server's clock, unix seconds."""
    return timestamp(str((await topology.api(f"STREAM.INFO.{_REGISTRY}")).get("ts", "")))
