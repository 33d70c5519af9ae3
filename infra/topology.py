"""Streams, consumers and buckets: declared here, created and migrated here, nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from callboard.infra import log, subjects
from callboard.infra.connection import Connection
from callboard.infra.errors import RequestTimeout, StoreRefused
from callboard.infra.server import syncs_every_write
from callboard.infra.settings import DAY, Settings
from callboard.infra.together import together

TIMERS = f"{subjects.WAKER}_any_{subjects.MIDDLE_BAND}"
SIGNALS = "callboard_signals"
"""Consumers of what wakes runs that are put aside."""

_EXISTS = 10058
_NANO = 1_000_000_000
_DEDUPE = 120.0
_WAITS = (2.0, 5.0, 8.0)
_ALONE: Mapping[str, Any] = {}


def replicas(settings: Settings, server: Mapping[str, Any]) -> int:
    """How many copies every stream gets.

    Args:
        server: what the server tells of itself.
    """
    several = "cluster" in server or "," in settings.nats_url
    return settings.replicas or (3 if settings.production and several else 1)


def durability_in_doubt(settings: Settings, server: Mapping[str, Any]) -> str:
    """Why acked writes may not survive a power cut although the settings say so; empty if they do.

    Whoever says ``replicas = 1`` answers for the server's disk.
    """
    if not settings.production or settings.replicas or replicas(settings, server) > 1:
        return ""
    if syncs_every_write(server):
        return ""
    return "streams have one copy, and this server does not tell whether it syncs every write"


RESTORE_DURABILITY = (
    "run three servers as a cluster; or 'callboard up --durability production'; or set "
    "'sync_interval: always' in the jetstream block of the server's configuration, and say so by "
    "replicas = 1 in Callboard's settings"
)


def declared(settings: Settings, server: Mapping[str, Any] = _ALONE) -> dict[str, dict[str, Any]]:
    """The configuration of every stream, by name, as JetStream's API takes it.

    Args:
        server: what the server tells of itself.
    """
    s = settings
    every: dict[str, Any] = {
        "storage": s.storage,
        "num_replicas": replicas(s, server),
        "allow_direct": True,
        "discard": "new",
        "max_consumers": s.max_consumers,
    }
    work = every | {
        "retention": "workqueue",
        "max_bytes": s.max_store_bytes,
        "duplicate_window": _ns(_DEDUPE),
    }
    calls = {
        "subjects": ["cb.call.>", "cb.timer.>"],
        # The server does not allow schedules together with "discard new". So this stream has no limit
        # of its own that could discard a call; what bounds it is the server's store, which refuses.
        "discard": "old",
        "max_bytes": -1,
        "allow_msg_schedules": True,
        "allow_msg_ttl": True,
    }
    runs = {
        "subjects": ["cb.run.>"],
        "retention": "limits",
        "max_age": _ns(s.journal_max_age),
        "max_bytes": s.max_store_bytes,
        "duplicate_window": _window(s.journal_max_age),
        "republish": {"src": "cb.run.>", "dest": "cb.journal.>"},
    }
    telemetry = {
        "subjects": ["cb.telemetry.>"],
        "discard": "old",
        "max_age": _ns(s.telemetry_max_age),
        "max_bytes": s.telemetry_max_bytes,  # the server sets so much aside at once
    }
    streams: dict[str, dict[str, Any]] = {
        subjects.REQUESTS: work | {"subjects": ["cb.request.>"]},
        subjects.CALLS: work | calls,
        subjects.RUNS: every | runs,
        subjects.TELEMETRY: every | telemetry,
        subjects.DEAD: every | {"subjects": ["cb.dead.>"], "discard": "old", "max_age": _ns(s.dead_max_age)},
        subjects.REGISTRY: every | _bucket(subjects.REGISTRY_BUCKET),
        f"KV_{subjects.RUNS_BUCKET}": every
        | _bucket(subjects.RUNS_BUCKET)
        | {"max_age": _ns(s.journal_max_age), "duplicate_window": _window(s.journal_max_age)},
        f"KV_{subjects.RUNTIMES_BUCKET}": every | _bucket(subjects.RUNTIMES_BUCKET),
        f"KV_{subjects.INBOX_BUCKET}": every
        | _bucket(subjects.INBOX_BUCKET)
        | {"max_age": _ns(s.journal_max_age), "duplicate_window": _window(s.journal_max_age)},
        f"KV_{subjects.STATE_BUCKET}": every
        | _bucket(subjects.STATE_BUCKET)
        | {"max_msgs_per_subject": s.state_history, "allow_msg_ttl": True},
        f"KV_{subjects.POLICY_BUCKET}": every
        | _bucket(subjects.POLICY_BUCKET)
        | {
            "allow_msg_ttl": True,
            "republish": {"src": f"$KV.{subjects.POLICY_BUCKET}.>", "dest": "cb.policy.>"},
        },
        f"KV_{subjects.BUDGET_BUCKET}": every | _bucket(subjects.BUDGET_BUCKET) | {"allow_msg_ttl": True},
        f"OBJ_{subjects.BLOBS_BUCKET}": every | _object_store(subjects.BLOBS_BUCKET, s.blob_max_age),
    }
    return {name: {"name": name, **config} for name, config in streams.items()}


def _window(max_age: float) -> int:
    """How long the server knows message ids: not longer than it keeps messages, which it would refuse."""
    return _ns(min(_DEDUPE, max_age or _DEDUPE))


def _bucket(name: str) -> dict[str, Any]:
    return {
        "subjects": [f"$KV.{name}.>"],
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "duplicate_window": _ns(_DEDUPE),
    }


def _object_store(name: str, max_age: float) -> dict[str, Any]:
    return {
        "subjects": [f"$O.{name}.C.>", f"$O.{name}.M.>"],
        "allow_rollup_hdrs": True,
        "max_age": _ns(max_age),
        "duplicate_window": _window(max_age),
    }


def call_consumer(actor: str, band: int, settings: Settings) -> tuple[str, dict[str, Any]]:
    """Name and configuration of the consumer of one band of an actor's shared lane."""
    return f"{actor}_any_{band}", _work_consumer(subjects.call(actor, subjects.ANY, band), settings)


def lane_consumer(host: str, settings: Settings) -> tuple[str, dict[str, Any]]:
    """Name and configuration of the consumer of everything addressed to one host.

    It goes by itself a day after its host; what the host left is re-addressed by whoever takes over.
    """
    config = _work_consumer(f"cb.call.*.{host}.*", settings)
    return f"host_{host}", config | {"inactive_threshold": _ns(DAY)}


def request_consumer(workflow: str, settings: Settings) -> tuple[str, dict[str, Any]]:
    """Name and configuration of the consumer of a workflow's requests."""
    return f"{workflow}_requests", _work_consumer(subjects.request(workflow), settings)


def signal_consumer(settings: Settings) -> tuple[str, dict[str, Any]]:
    """Name and configuration of the consumer of the signals to all runs: what is put aside is woken."""
    return SIGNALS, _work_consumer("cb.run.*.signal", settings)


def _work_consumer(subject: str, settings: Settings) -> dict[str, Any]:
    return {
        "filter_subject": subject,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "ack_wait": _ns(settings.ack_wait),
        "max_ack_pending": -1,
        "max_deliver": -1,
    }


def _ns(seconds: float) -> int:
    return int(seconds * _NANO)


class Topology:
    """Creates what is missing and brings to its declaration what differs. Idempotent everywhere.

    Args:
        connection: an open connection.
        settings: what the declarations are made from.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._log = log.get("topology")

    async def ensure(self, *, migrate: bool = True) -> None:
        """Create what is missing.

        Args:
            migrate: also bring to its declaration what differs; for hosts, whose settings count.

        Raises:
            StoreRefused: the server refuses a stream (for example: not enough servers for the replicas).
        """
        server = self._connection.client.info
        doubt = durability_in_doubt(self._settings, server) if migrate else ""
        if doubt:
            self._log.warning("durability_in_doubt", problem=doubt, fix=RESTORE_DURABILITY)
        every = declared(self._settings, server).values()
        await together(self._stream(config, migrate=migrate) for config in every)

    async def _stream(self, config: dict[str, Any], *, migrate: bool) -> None:
        name = config["name"]
        answer = await self.api(f"STREAM.CREATE.{name}", config)
        code = answer.get("error", {}).get("err_code")
        if code == _EXISTS:
            answer = await self._migrate(name, config) if migrate else {}
        self._raise(answer, f"stream {name}")

    async def _migrate(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        current = (await self.api(f"STREAM.INFO.{name}")).get("config", {})
        changed = {key: value for key, value in config.items() if current.get(key) != value}
        if not changed:
            return {}
        self._log.info("stream_migrated", stream=name, changed=sorted(changed))
        return await self.api(f"STREAM.UPDATE.{name}", current | changed)

    async def consumer(self, stream: str, name: str, config: dict[str, Any]) -> None:
        """Create or migrate one durable consumer.

        Raises:
            StoreRefused: the stream does not exist or has too many consumers.
        """
        body = {"stream_name": stream, "config": config | {"durable_name": name}}
        answer = await self.api(f"CONSUMER.CREATE.{stream}.{name}", body)
        self._raise(answer, f"consumer {name} of stream {stream}")

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Delete a consumer; one that does not exist is fine."""
        await self.api(f"CONSUMER.DELETE.{stream}.{name}")

    async def delete_message(self, stream: str, sequence: int) -> None:
        """Take one message out of a stream; one that is gone already is fine."""
        await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})

    async def purge(self, stream: str, subject: str) -> None:
        """Take all messages of a subject (wildcards allowed) out of a stream.

        Raises:
            StoreRefused: the server says no.
        """
        answer = await self.api(f"STREAM.PURGE.{stream}", {"filter": subject})
        self._raise(answer, f"to purge {subject} of stream {stream}")

    async def api(self, verb: str, body: Any = None) -> dict[str, Any]:
        """One request to JetStream's API; errors are in the answer's ``error``.

        A server that has just started answers when its streams are there, so this waits up to 15 s.
        """
        payload = b"" if body is None else msgspec.json.encode(body)
        for wait in _WAITS:
            try:
                reply = await self._connection.request(f"$JS.API.{verb}", payload, wait)
            except RequestTimeout:
                if wait == _WAITS[-1]:
                    raise
                await self._connection.connected.wait()
            else:
                answer: dict[str, Any] = msgspec.json.decode(reply)
                return answer
        raise AssertionError("unreachable")

    def _raise(self, answer: dict[str, Any], what: str) -> None:
        error = answer.get("error")
        if error:
            text = error.get("description", "unknown error")
            raise StoreRefused(
                f"the server refuses {what}: {text}", err_code=error.get("err_code"), description=text
            )
