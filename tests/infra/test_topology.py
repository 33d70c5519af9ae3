"""Streams, consumers and buckets: created, found, migrated, refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.infra.conftest import Connect

from callboard.infra import subjects
from callboard.infra.connection import Connection
from callboard.infra.errors import StoreRefused
from callboard.infra.server import EmbeddedServer
from callboard.infra.settings import DAY, Settings
from callboard.infra.store import Store
from callboard.infra.topology import Topology, call_consumer, declared


def changed(settings: Settings, **values: Any) -> Settings:
    """The settings with some values replaced."""
    return Settings.load({}, nats_url=settings.nats_url, **values)


async def test_everything_declared_is_there_afterwards(topology: Topology, settings: Settings) -> None:
    """Every stream and bucket exists with what its declaration says."""
    await topology.ensure()
    names = (await topology.api("STREAM.NAMES"))["streams"]
    expected = declared(settings)
    assert sorted(names) == sorted(expected)
    for name, config in expected.items():
        found = (await topology.api(f"STREAM.INFO.{name}"))["config"]
        assert {key: found.get(key) for key in config} == config


async def test_ensuring_again_changes_nothing(topology: Topology) -> None:
    """What is as declared is left alone: no stream is migrated, none is created anew."""
    await topology.ensure()
    before = await topology.api(f"STREAM.INFO.{subjects.RUNS}")
    with capture_logs() as logs:
        await asyncio.gather(*(topology.ensure() for _ in range(5)))
    assert [entry for entry in logs if entry["event"] == "stream_migrated"] == []
    after = await topology.api(f"STREAM.INFO.{subjects.RUNS}")
    assert (after["created"], after["config"]) == (before["created"], before["config"])


async def test_many_processes_may_ensure_at_once(connect: Connect, settings: Settings) -> None:
    """Hosts that start together on an empty server do not get in each other's way."""
    processes = [Topology(await connect(), settings) for _ in range(5)]
    await asyncio.gather(*(process.ensure() for process in processes))
    assert len((await processes[0].api("STREAM.NAMES"))["streams"]) == len(declared(settings))


async def test_a_changed_setting_reaches_existing_streams(
    topology: Topology, connection: Connection, store: Store, settings: Settings
) -> None:
    """The setting is changed in place and what is stored stays; other streams are left alone."""
    await topology.ensure()
    await store.stored(subjects.run("r", "result"), b"kept")
    with capture_logs() as logs:
        await Topology(connection, changed(settings, dead_max_age=7200, journal_max_age=7200)).ensure()
    migrated = {entry["stream"]: entry["changed"] for entry in logs if entry["event"] == "stream_migrated"}
    assert migrated == {
        subjects.DEAD: ["max_age"],
        subjects.RUNS: ["max_age"],
        f"KV_{subjects.RUNS_BUCKET}": ["max_age"],
        f"KV_{subjects.INBOX_BUCKET}": ["max_age"],
    }
    info = await topology.api(f"STREAM.INFO.{subjects.RUNS}")
    assert info["config"]["max_age"] == 7200 * 10**9
    assert info["state"]["messages"] == 1


async def test_streams_of_the_old_ages_are_migrated(
    topology: Topology, connection: Connection, settings: Settings
) -> None:
    """Journals of an older version are kept as long as those of this one, also what is in them already."""
    ages = {"journal_max_age": 7 * DAY, "blob_max_age": 14 * DAY}
    await Topology(connection, changed(settings, **ages)).ensure()
    await topology.ensure()
    for name, age in ((subjects.RUNS, settings.journal_max_age), ("OBJ_cb_blobs", settings.blob_max_age)):
        config = (await topology.api(f"STREAM.INFO.{name}"))["config"]
        assert config["max_age"] == age * 10**9


@pytest.mark.parametrize("age", [0, 5])
async def test_the_shortest_and_the_longest_ages(
    connection: Connection, settings: Settings, age: float
) -> None:
    """The server takes them, and nothing is left to migrate."""
    topology = Topology(connection, changed(settings, journal_max_age=age, blob_max_age=age))
    await topology.ensure()
    with capture_logs() as logs:
        await topology.ensure()
    assert [entry for entry in logs if entry["event"] == "stream_migrated"] == []


async def test_what_somebody_else_has_set_beside_is_kept(topology: Topology) -> None:
    """A migration touches only what is declared: a description given by an operator stays."""
    await topology.ensure()
    config = (await topology.api(f"STREAM.INFO.{subjects.DEAD}"))["config"]
    await topology.api(f"STREAM.UPDATE.{subjects.DEAD}", config | {"description": "mine", "max_age": 0})
    await topology.ensure()
    config = (await topology.api(f"STREAM.INFO.{subjects.DEAD}"))["config"]
    assert config["description"] == "mine"
    assert config["max_age"] > 0


async def test_replicas_that_one_server_cannot_give(connection: Connection, settings: Settings) -> None:
    """The error names the stream and the server's reason."""
    with pytest.raises(StoreRefused, match="the server refuses stream") as caught:
        await Topology(connection, changed(settings, replicas=3)).ensure()
    assert caught.value.fields["description"] in caught.value.message
    assert caught.value.fields["err_code"] == 10074


async def test_a_setting_that_cannot_be_changed_in_place(
    topology: Topology, connection: Connection, settings: Settings
) -> None:
    """Storage is fixed when a stream is made: the server's refusal comes out typed."""
    await topology.ensure()
    with pytest.raises(StoreRefused, match="storage type"):
        await Topology(connection, changed(settings, storage="memory")).ensure()


async def test_a_consumer_is_created_and_migrated(topology: Topology, settings: Settings) -> None:
    """A durable consumer is made once; a changed ack wait reaches it in place."""
    await topology.ensure()
    name, config = call_consumer("Agent", 1, settings)
    await topology.consumer(subjects.CALLS, name, config)
    name, config = call_consumer("Agent", 1, changed(settings, ack_wait=7.5))
    await topology.consumer(subjects.CALLS, name, config)
    info = await topology.api(f"CONSUMER.INFO.{subjects.CALLS}.{name}")
    assert info["config"]["ack_wait"] == 7_500_000_000
    assert info["config"]["filter_subject"] == "cb.call.Agent.any.1"
    await topology.delete_consumer(subjects.CALLS, name)
    await topology.delete_consumer(subjects.CALLS, name)
    assert "error" in await topology.api(f"CONSUMER.INFO.{subjects.CALLS}.{name}")


async def test_a_consumer_of_no_stream(topology: Topology, settings: Settings) -> None:
    """The error names the consumer, the stream and the reason."""
    name, config = call_consumer("Agent", 1, settings)
    with pytest.raises(StoreRefused, match=f"consumer {name} of stream {subjects.CALLS}.*not found"):
        await topology.consumer(subjects.CALLS, name, config)


async def test_the_limit_of_consumers_is_the_settings(connection: Connection, settings: Settings) -> None:
    """A stream takes as many consumers as declared; one more is a typed error."""
    few = Topology(connection, changed(settings, max_consumers=1))
    await few.ensure()
    for band, refused in ((0, False), (1, True)):
        name, config = call_consumer("Agent", band, settings)
        if refused:
            with pytest.raises(StoreRefused, match="maximum consumers"):
                await few.consumer(subjects.CALLS, name, config)
        else:
            await few.consumer(subjects.CALLS, name, config)


def test_production_means_three_replicas_on_a_cluster() -> None:
    """Durability and a server that names its cluster, or several addresses, decide, unless replicas are given."""
    one, three = "nats://a:4222", "nats://a:4222,nats://b:4222,nats://c:4222"

    def copies(server: dict[str, Any], **values: Any) -> set[int]:
        return {c["num_replicas"] for c in declared(Settings.load({}, **values), server).values()}

    clustered = {"cluster": "board"}
    assert copies(clustered, nats_url=one, durability="production") == {3}
    assert copies({}, nats_url=three, durability="production") == {3}
    assert copies(clustered, nats_url=three) == {1}
    assert copies({}, nats_url=one, durability="production") == {1}
    assert copies(clustered, nats_url=one, durability="production", replicas=5) == {5}


@pytest.mark.parametrize(
    ("sync_always", "values", "doubted"),
    [
        (False, {"durability": "production"}, True),
        (False, {"durability": "production", "replicas": 1}, False),
        (False, {"durability": "development"}, False),
        (True, {"durability": "production"}, False),
    ],
)
async def test_production_on_one_server_is_doubted(
    sync_always: bool,  # noqa: FBT001 - a case
    values: dict[str, Any],
    doubted: bool,  # noqa: FBT001 - a case
) -> None:
    """Unless the server is known to sync every write, or replicas = 1 says that it does; only hosts tell."""
    with EmbeddedServer(sync_always=sync_always) as server:
        settings = Settings.load({}, nats_url=server.url, **values)
        connection = await Connection(settings, "test").open()
        try:
            for migrate in (True, False):
                with capture_logs() as logs:
                    await Topology(connection, settings).ensure(migrate=migrate)
                told = [entry for entry in logs if entry["event"] == "durability_in_doubt"]
                assert bool(told) == (doubted and migrate)
                assert all("sync_interval: always" in entry["fix"] for entry in told)
        finally:
            await connection.close()
        server.kill()
