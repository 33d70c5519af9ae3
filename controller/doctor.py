"""The usual causes of trouble, looked for before anyone asks. Reads only; nothing is created or migrated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from callboard.actors.node import ROOM_FOR_HEADERS
from callboard.actors.resources import told
from callboard.controller.look import Look, look
from callboard.controller.strays import dropping, is_stray, messages, waits
from callboard.infra import subjects
from callboard.infra.settings import GIB, Settings
from callboard.infra.topology import (
    RESTORE_DURABILITY,
    TIMERS,
    declared,
    durability_in_doubt,
    replicas,
)

_CLOCK_LIMIT = 0.5
_FULL = 0.8
_LATE = 0.25
_SHOWN = 5
_LEAST_DISK = 2 * GIB


class Finding(msgspec.Struct):
    """What one check has found.

    Attributes:
        check: which one; level: ``problem`` needs somebody to act, ``note`` may.
        what: in words; fix: what to do about it.
    """

    check: str
    level: Literal["ok", "note", "problem"]
    what: str
    fix: str = ""


async def examine(settings: Settings) -> list[Finding]:
    """Run all checks.

    Raises:
        ConnectFailed, ServerUnsuitable: there is nothing to look at, as the error says.
    """
    seen = await look(settings)
    return [finding for check in CHECKS for finding in check(seen)]


# -- the checks -------------------------------------------------------------------------------------


def _server(seen: Look) -> Iterator[Finding]:
    version = seen.server.get("version")
    yield Finding("server", "ok", f"{seen.settings.nats_url} is version {version}, with JetStream")


def _durability(seen: Look) -> Iterator[Finding]:
    doubt = durability_in_doubt(seen.settings, seen.server)
    if doubt:
        yield Finding(
            "durability", "problem", f"durability is to be production, but {doubt}", RESTORE_DURABILITY
        )
        return
    copies = replicas(seen.settings, seen.server)
    stored = f"streams have {copies} copies" if copies > 1 else "streams have one copy"
    if not seen.settings.production:
        stored += "; a power cut may lose the last two minutes"
    elif copies == 1:
        vouched = ", and replicas = 1 says that" if seen.settings.replicas else ", and"
        stored += f"{vouched} the server syncs every write"
    yield Finding("durability", "ok", f"{seen.settings.durability}: {stored}")


def _stream_settings(seen: Look) -> Iterator[Finding]:
    wanted = declared(seen.settings, seen.server)
    if not seen.streams:
        yield Finding(
            "streams", "problem", "there are no streams", "start a host, it makes them: callboard host APP"
        )
        return
    for name, config in wanted.items():
        if name not in seen.streams:
            yield Finding("streams", "problem", f"stream {name} is missing", "start a host, it makes it")
            continue
        current = seen.streams[name]["config"]
        for key in (key for key, value in config.items() if current.get(key) != value):
            yield Finding(
                "streams",
                "problem",
                f"stream {name} has {key} {current.get(key)!r}, declared is {config[key]!r}",
                "start a host with the settings of here, or give these settings here "
                "(callboard.toml, CALLBOARD_...)",
            )
    yield Finding("streams", "ok", f"{len(seen.streams)} of {len(wanted)} streams exist")


def _ages(seen: Look) -> Iterator[Finding]:
    journals, blobs = seen.settings.journal_max_age, seen.settings.blob_max_age
    if 0 < blobs < 2 * journals:
        yield Finding(
            "ages",
            "note",
            f"large values are kept for {blobs:.0f} s, and stored again after half of that: a journal, which "
            f"is kept for {journals:.0f} s, may refer to one that is gone",
            f"set blob_max_age to {2 * journals:.0f} or more, or shorten journal_max_age",
        )


def _room(seen: Look) -> Iterator[Finding]:
    for name, info in seen.streams.items():
        config, state = info["config"], info["state"]
        for what, used, limit in (
            ("bytes", state["bytes"], config.get("max_bytes", -1)),
            ("consumers", state["consumer_count"], config.get("max_consumers", -1)),
        ):
            # Telemetry makes room by itself, the oldest first.
            if limit > 0 and used > _FULL * limit and not (what == "bytes" and config["discard"] == "old"):
                yield Finding(
                    "limits",
                    "problem",
                    f"stream {name} uses {used} of {limit} {what}",
                    f"raise max_{'store_bytes' if what == 'bytes' else what} (callboard.toml, CALLBOARD_...) "
                    "and start the hosts again" + (", or shorten journal_max_age" if what == "bytes" else ""),
                )
        for replica in info.get("cluster", {}).get("replicas") or []:
            if replica.get("offline") or not replica.get("current", True):
                yield Finding(
                    "limits",
                    "problem",
                    f"the copy of stream {name} on {replica['name']} is behind or offline",
                    "see to that server",
                )


def _limits(seen: Look) -> Iterator[Finding]:
    payload, needed = seen.server.get("max_payload", 0), seen.settings.inline_limit + ROOM_FOR_HEADERS
    if payload < needed:
        yield Finding(
            "limits",
            "problem",
            f"the server takes messages of {payload} bytes, but values up to inline_limit travel in {needed}",
            f"set the server's max_payload to {needed} or more, or CALLBOARD_INLINE_LIMIT to "
            f"{max(0, payload - ROOM_FOR_HEADERS)} or less",
        )
    used, limit = seen.account.get("storage", 0), seen.account.get("limits", {}).get("max_storage", -1)
    if 0 < limit < used / _FULL:
        yield Finding(
            "limits",
            "problem",
            f"the account stores {used} of {limit} bytes",
            "raise the account's limit, or shorten journal_max_age",
        )
    if seen.disk is not None and seen.disk[1] < _LEAST_DISK:
        yield Finding(
            "limits",
            "problem",
            f"the disk of {seen.disk[0]} has {seen.disk[1] / GIB:.1f} GiB left",
            "free some, or move the store",
        )
    yield Finding("limits", "ok", f"messages up to {payload} bytes, {used} bytes stored")


def _clocks(seen: Look) -> Iterator[Finding]:
    off = abs(seen.clock) - seen.clock_error
    text = f"the server's clock is {seen.clock:+.3f} s from ours (give or take {seen.clock_error:.3f} s)"
    if off > _CLOCK_LIMIT:
        yield Finding(
            "clock", "problem", text, "synchronize both by NTP: deadlines and delayed retries depend on it"
        )
    elif seen.streams:
        yield Finding("clock", "ok", text)


def _hosts(seen: Look) -> Iterator[Finding]:
    for host in seen.alive:
        if host.late > _LATE:
            yield Finding(
                "hosts",
                "problem",
                f"the event loop of {host.host} ({host.node}, pid {host.pid}) is blocked ({host.late:.1f} s)",
                "its log names the handler; make it a plain 'def' or give it cpu=True",
            )
        if host.draining:
            yield Finding("hosts", "note", f"{host.host} ({host.node}, pid {host.pid}) is draining")
    if seen.vanished and not seen.alive:
        names = ", ".join(host.host for host in seen.vanished)
        yield Finding(
            "hosts",
            "problem",
            f"vanished without a goodbye, and nobody there to take over: {names}",
            "start a host, it takes over: callboard host APP",
        )
    names = ", ".join(f"{host.host} ({host.node}, pid {host.pid})" for host in seen.alive)
    yield Finding("hosts", "ok" if seen.alive else "note", f"alive: {names or 'none'}")


def _foreign(seen: Look) -> Iterator[Finding]:
    if seen.foreign:
        shown, count = seen.foreign[:_SHOWN], len(seen.foreign)
        more = f" and {count - _SHOWN:,} more" if count > _SHOWN else ""
        yield Finding(
            "registry",
            "problem",
            f"{messages(count)} in the registry that no host has written: {', '.join(shown)}{more}",
            f"drop what is there: {dropping(subjects.REGISTRY, *shown)}",
        )


def _instances(seen: Look) -> Iterator[Finding]:
    for actor in seen.actors:
        running = seen.serving(actor.name)
        least = actor.directives.get("min_instances", 0)
        if len(running) < least:
            yield Finding(
                "actors",
                "problem",
                f"{actor.kind} {actor.name} has {len(running)} of at least {least} instances",
                f"callboard host APP:{actor.name}",
            )
        needs = actor.directives.get("resources")
        if needs and not running:
            yield Finding(
                "actors",
                "note",
                f"{actor.kind} {actor.name} runs on no host, and needs {told(needs)}",
                f"callboard host APP:{actor.name} where there is so much, or tell it with --resource",
            )
        silent = [host.host for host in running if host.instances[actor.name].down]
        if silent:
            yield Finding(
                "engines",
                "problem",
                f"the engine of {actor.kind} {actor.name} does not answer: on {', '.join(silent)}",
                "start it, or see its log; its hosts ask twice a second whether it answers again",
            )
        versions: dict[str, list[str]] = {}
        for host in running:
            versions.setdefault(host.instances[actor.name].version, []).append(host.host)
        if len(versions) > 1:
            listed = "; ".join(f"{version} on {', '.join(on)}" for version, on in versions.items())
            yield Finding(
                "versions",
                "problem",
                f"hosts run different code of {actor.name}: {listed}",
                "restart those with the older one: callboard control drain HOST",
            )


def _waiting(seen: Look) -> Iterator[Finding]:
    """Messages that nobody is there to take."""
    alive = {host.host for host in seen.alive}
    known = {one.name for one in seen.actors} | {subjects.WAKER}
    waiting: dict[str, int] = {}
    for stream in (subjects.CALLS, subjects.REQUESTS):
        counts = seen.streams.get(stream, {}).get("state", {}).get("subjects") or {}
        for subject, count in counts.items():
            parts = subject.split(".")
            if parts[1] not in {"call", "request"} or is_stray(subject):
                continue
            lane = parts[3] if parts[1] == "call" else subjects.ANY
            served = seen.serving(parts[2]) if lane == subjects.ANY else lane in alive
            if not served:
                waiting[parts[2]] = waiting.get(parts[2], 0) + count
    for actor, count in waiting.items():
        yield Finding(
            "waiting",
            "problem",
            f"{messages(count)} for {actor} {waits(count)}, and no host runs it",
            f"callboard host APP:{actor}" + ("" if actor in known else _if_there_is_none(actor)),
        )
    idle = sorted({_actor_of(name) for name in seen.consumers} - {""} - set(waiting))
    idle = [actor for actor in idle if not seen.serving(actor)]
    if idle:
        yield Finding(
            "waiting", "note", f"known, but run by no host: {', '.join(idle)}", "callboard host APP"
        )


def _admission(seen: Look) -> Iterator[Finding]:
    """Requests that wait since somebody wants it so."""
    for limit in seen.limits:
        many = f"at most {limit.rate:g} requests a second" if limit.rate else "no requests"
        why = f", {limit.reason}" if limit.reason else ""
        yield Finding(
            "admission",
            "note",
            f"{limit.workflow} accepts {many}; the others wait ({limit.policy}{why})",
            f"callboard admit {limit.workflow} all",
        )


def _if_there_is_none(actor: str) -> str:
    """What to do with messages for an actor that no host has ever announced."""
    calls, requests = dropping(subjects.CALLS, f"cb.call.{actor}.>"), subjects.request(actor)
    return f"; or, if there is no such actor, drop them: {calls}; {dropping(subjects.REQUESTS, requests)}"


def _strays(seen: Look) -> Iterator[Finding]:
    """Messages that nobody will ever take, whoever is there."""
    for stream in (subjects.CALLS, subjects.REQUESTS):
        counts = seen.streams.get(stream, {}).get("state", {}).get("subjects") or {}
        strays = {
            subject: count
            for subject, count in counts.items()
            if subject.split(".")[1] in {"call", "request"} and is_stray(subject)
        }
        if strays:
            shown = sorted(strays)[:_SHOWN]
            more = f" and {len(strays) - _SHOWN:,} more" if len(strays) > _SHOWN else ""
            yield Finding(
                "strays",
                "problem",
                f"{messages(sum(strays.values()))} in {stream} on subjects that nobody reads: "
                f"{', '.join(shown)}{more}",
                f"see docs/protocol.md for the subjects; drop them: {dropping(stream, *shown)}",
            )


def _actor_of(consumer: str) -> str:
    """Whose calls or requests a consumer holds; empty for that of a host, and of timers."""
    if consumer.startswith("host_") or consumer == TIMERS:
        return ""
    ending = "_requests" if consumer.endswith("_requests") else "_any_0"
    return consumer[: -len(ending)]


def _dead(seen: Look) -> Iterator[Finding]:
    count = seen.streams.get(subjects.DEAD, {}).get("state", {}).get("messages", 0)
    if count:
        yield Finding(
            "dead letters",
            "problem",
            f"{messages(count)} could not be handled",
            "callboard dead list tells why; then callboard dead requeue or purge them",
        )


CHECKS: tuple[Callable[[Look], Iterable[Finding]], ...] = (
    _server,
    _durability,
    _stream_settings,
    _ages,
    _room,
    _limits,
    _clocks,
    _hosts,
    _foreign,
    _instances,
    _waiting,
    _admission,
    _strays,
    _dead,
)
"""Each looks and yields what it finds; what is fine is told too where it helps."""
