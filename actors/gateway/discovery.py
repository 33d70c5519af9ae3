"""The gateway in NATS's own service discovery: ``$SRV.PING``, ``INFO`` and ``STATS``, as ``nats micro`` asks.

The protocol is nats-py's. Its endpoints would subscribe by themselves, so what FastStream serves is told
to it instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version

from nats.aio.client import Client
from nats.micro.service import EndpointInfo, EndpointStats, Service, ServiceConfig, ServiceInfo, ServiceStats

from callboard.actors.gateway.answering import Tally
from callboard.actors.gateway.messages import GROUP, subject

NAME = "callboard-gateway"
_SEMANTIC = re.compile(r"\d+\.\d+\.\d+")
_FOUND = _SEMANTIC.match(version("callboard"))  # read once: it looks into files


class Discovery(Service):
    """Tells of the gateway's verbs.

    Args:
        client: an open connection's.
        gateway: its id.
        verbs: what each does.
        tallies: what each has done.
    """

    def __init__(
        self, client: Client, gateway: str, verbs: Mapping[str, str], tallies: Mapping[str, Tally]
    ) -> None:
        config = ServiceConfig(
            name=NAME,
            version=_FOUND.group() if _FOUND else "0.0.0",
            description="Runs Callboard workflows by request and reply",
            metadata={"gateway": gateway},
        )
        super().__init__(client, config)
        self._verbs = verbs
        self._tallies = tallies

    def info(self) -> ServiceInfo:
        """What it serves."""
        told = super().info()
        told.endpoints = [
            EndpointInfo(verb, subject(verb, "*"), GROUP, {"description": text})
            for verb, text in self._verbs.items()
        ]
        return told

    def stats(self) -> ServiceStats:
        """What it has done since it started."""
        told = super().stats()
        told.endpoints = [
            EndpointStats(
                name=verb,
                subject=subject(verb, "*"),
                queue_group=GROUP,
                num_requests=tally.taken,
                num_errors=tally.errors,
                processing_time=tally.nanoseconds,
                average_processing_time=tally.nanoseconds // max(1, tally.answered),
                last_error=tally.last_error or None,
            )
            for verb, tally in self._tallies.items()
        ]
        return told
