"""The gateway: workflows by request and reply, for clients that want one round trip.

Subjects ``cb.api.<verb>.<name>`` on core NATS, JSON or msgpack, shared by all gateways that run. It is a
client like any other: what it does, ``cb.request.<workflow>`` and the journal do without it.
"""

from callboard.actors.gateway.server import Gateway

__all__ = ["Gateway"]
