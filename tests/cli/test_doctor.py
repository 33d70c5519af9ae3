"""``callboard doctor``: finds what was planted, and nothing on a board that is well."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
from tests.cli.terminal import APP, Running, Typed, eventually

from callboard.cli.exits import Exit
from callboard.controller.doctor import CHECKS, Finding
from callboard.controller.look import Look
from callboard.infra.messages.registry import ActorInfo, InstanceInfo, Pulse
from callboard.infra.server import find_binary
from callboard.infra.settings import GIB, Settings
from callboard.infra.topology import declared

SETTINGS = Settings(nats_url="nats://127.0.0.1:1")


# -- on a real board --------------------------------------------------------------------------------


def api(url: str, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to JetStream's API."""

    async def ask() -> dict[str, Any]:
        client = await nats.connect(url)
        answer = await client.request(f"$JS.API.{verb}", json.dumps(body).encode() if body else b"")
        await client.close()
        found: dict[str, Any] = json.loads(answer.data)
        return found

    return asyncio.run(ask())


def publish(url: str, subject: str) -> None:
    """Store an empty message."""

    async def store() -> None:
        client = await nats.connect(url)
        await client.jetstream().publish(subject, b"")
        await client.close()

    asyncio.run(store())


def problems(url: str, typed: Typed) -> dict[str, dict[str, str]]:
    """What the doctor finds to be wrong, by check; its exit code must agree."""
    ran = typed("doctor", "--json", url=url)
    found = {one["check"]: one for one in ran.json if one["level"] == "problem"}
    assert ran.code == (Exit.FAILED if found else Exit.OK)
    assert all(one["fix"] for one in found.values())
    return found


@pytest.fixture
def hosted(nats_url: str) -> Iterator[str]:
    """A board with a host of one tool and one workflow, without the agent that wants company."""
    with Running("host", f"{APP}:add,greet", "--json", url=nats_url) as host:
        host.until('"event":"host_ready"')
        yield nats_url


def test_a_board_that_is_well(hosted: str, typed: Typed) -> None:
    """Exit code 0, and the facts."""
    assert problems(hosted, typed) == {}
    text = typed("doctor", url=hosted).out
    assert "all is well" in text
    count = len(declared(SETTINGS))
    assert f"{count} of {count} streams exist" in text
    assert "alive: h-" in text


def test_an_empty_server(nats_url: str, typed: Typed) -> None:
    """There are no streams yet; looking does not make them."""
    assert set(problems(nats_url, typed)) == {"streams"}
    assert api(nats_url, "STREAM.NAMES")["total"] == 0


def test_no_server(typed: Typed) -> None:
    """Says what to start, with an exit code of its own."""
    ran = typed("doctor", "--nats", "nats://127.0.0.1:1")
    assert ran.code == Exit.NO_SERVER
    assert "callboard up" in ran.err


def test_a_server_that_will_not_do(typed: Typed, tmp_path: Path) -> None:
    """One without JetStream is named as such."""
    command = [str(find_binary()), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as plain:
        try:
            eventually(lambda: any(file.stat().st_size for file in tmp_path.glob("*.ports")))
            (ports,) = tmp_path.glob("*.ports")
            ran = typed("doctor", "--nats", json.loads(ports.read_text())["nats"][0])
        finally:
            plain.terminate()
    assert ran.code == Exit.NO_SERVER
    assert "without JetStream" in ran.err


def test_a_stream_that_was_changed(hosted: str, typed: Typed) -> None:
    """It is named with what it has and what is declared; the doctor does not touch it."""
    config = api(hosted, "STREAM.INFO.DEAD")["config"]
    api(hosted, "STREAM.UPDATE.DEAD", config | {"max_age": 3_600_000_000_000})
    for _ in range(2):
        found = problems(hosted, typed)
        assert set(found) == {"streams"}
        assert "stream DEAD has max_age 3600000000000" in found["streams"]["what"]


def test_a_stream_that_is_missing(hosted: str, typed: Typed) -> None:
    """Somebody has deleted it."""
    api(hosted, "STREAM.DELETE.TELEMETRY")
    assert problems(hosted, typed)["streams"]["what"] == "stream TELEMETRY is missing"


def test_calls_that_nobody_serves(hosted: str, typed: Typed) -> None:
    """Calls and requests for what no host runs; the fix names it."""
    publish(hosted, "cb.call.hold.any.1")
    publish(hosted, "cb.call.hold.any.0")
    found = problems(hosted, typed)
    assert found["waiting"]["what"] == "2 messages for hold wait, and no host runs it"
    fix = found["waiting"]["fix"]
    assert fix.startswith(
        "callboard host APP:hold; or, if there is no such actor, drop them: nats stream purge"
    )
    assert "CALLS --subject 'cb.call.hold.>'" in fix
    publish(hosted, "cb.request.totals")
    every = typed("doctor", "--json", url=hosted).json
    assert "1 message for totals waits, and no host runs it" in [one["what"] for one in every]


def test_an_actor_whose_hosts_are_gone(hosted: str, typed: Typed) -> None:
    """Its consumers without hosts are worth a note; it is no problem while nobody calls it."""
    with Running("host", f"{APP}:broken,fails", "--json", url=hosted) as host:
        host.until('"event":"host_ready"')
    every = typed("doctor", "--json", url=hosted).json
    notes = [one["what"] for one in every if (one["check"], one["level"]) == ("waiting", "note")]
    assert notes == ["known, but run by no host: broken, fails"]


def test_dead_letters(hosted: str, typed: Typed) -> None:
    """They wait for somebody to decide."""
    publish(hosted, "cb.call.add.any.1")
    eventually(lambda: "dead letters" in problems(hosted, typed))
    assert "callboard dead list" in problems(hosted, typed)["dead letters"]["fix"]


def test_requests_that_are_not_accepted(hosted: str, typed: Typed) -> None:
    """Somebody wants it so: it is no problem, but why requests wait."""
    typed("admit", "greet", 0, "--reason", "the model is being moved", url=hosted)
    typed("admit", "totals", 2.5, url=hosted)
    notes = [one for one in typed("doctor", "--json", url=hosted).json if one["check"] == "admission"]
    assert [(one["level"], one["what"], one["fix"]) for one in notes] == [
        (
            "note",
            "greet accepts no requests; the others wait (by hand, the model is being moved)",
            "callboard admit greet all",
        ),
        (
            "note",
            "totals accepts at most 2.5 requests a second; the others wait (by hand)",
            "callboard admit totals all",
        ),
    ]


def test_too_few_instances(hosted: str, typed: Typed) -> None:
    """Of an actor that says how many it wants."""
    with Running("host", f"{APP}:Scarce", "--json", url=hosted) as host:
        host.until('"event":"host_ready"')
        eventually(lambda: "actors" in problems(hosted, typed))
        assert "1 of at least 2" in problems(hosted, typed)["actors"]["what"]


def test_hosts_with_different_code(hosted: str, typed: Typed, tmp_path: Path) -> None:
    """Both versions are named with their hosts."""
    other = tmp_path / "other_app.py"
    other.write_text(
        "from callboard import tool\n@tool\nasync def add(a: int, b: int) -> int:\n    return b + a\n"
    )
    with Running("host", other, "--json", url=hosted) as host:
        name = json.loads(host.until('"event":"host_ready"'))["host"]
        found = problems(hosted, typed)["versions"]
    assert "different code of add" in found["what"]
    assert name in found["what"]


def test_a_host_that_vanished(nats_url: str, typed: Typed) -> None:
    """After kill -9 of the only one, nobody is there to take over."""
    with Running("host", f"{APP}:add", "--json", url=nats_url) as host:
        name = json.loads(host.until('"event":"host_ready"'))["host"]
        host.send(signal.SIGKILL)
        host.wait()
    eventually(lambda: "hosts" in problems(nats_url, typed))
    assert name in problems(nats_url, typed)["hosts"]["what"]


def test_messages_that_are_too_small(hosted: str, typed: Typed) -> None:
    """Values that are to travel inline would not fit the server's max_payload."""
    ran = typed("doctor", "--json", url=hosted, CALLBOARD_INLINE_LIMIT="1048576")
    assert ran.code == Exit.FAILED
    (found,) = [one for one in ran.json if one["level"] == "problem"]
    assert found["check"] == "limits"
    assert "CALLBOARD_INLINE_LIMIT" in found["fix"]


def test_the_disk_of_a_server_on_this_machine(
    hosted: str, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at where the server stores."""
    asked: list[str] = []

    def usage(folder: object) -> shutil._ntuple_diskusage:
        asked.append(str(folder))
        return shutil._ntuple_diskusage(100 * GIB, 99 * GIB, GIB)

    monkeypatch.setattr("callboard.controller.look.shutil.disk_usage", usage)
    found = problems(hosted, typed)["limits"]
    assert asked[0] in found["what"]
    assert "callboard-nats-" in found["what"]
    assert "1.0 GiB left" in found["what"]


def test_production_that_nobody_vouches_for(hosted: str, typed: Typed) -> None:
    """One server that does not say whether it syncs: a problem, until somebody says so."""
    production = {"CALLBOARD_DURABILITY": "production"}
    found = typed("doctor", "--json", url=hosted, **production)
    assert found.code == Exit.FAILED
    (problem,) = [one for one in found.json if one["level"] == "problem"]
    assert (problem["check"], "replicas = 1" in problem["fix"]) == ("durability", True)
    text = typed("doctor", url=hosted, CALLBOARD_REPLICAS="1", **production).out
    assert "production: streams have one copy, and replicas = 1 says that the server syncs" in text
    assert "development: streams have one copy; a power cut may lose" in typed("doctor", url=hosted).out


# -- what cannot be planted on a server of a test ---------------------------------------------------


def stream(**more: Any) -> dict[str, Any]:
    """What a server says of a stream that is well."""
    config = declared(SETTINGS)["RUNS"] | more.pop("config", {})
    return {
        "config": config,
        "state": {"bytes": 0, "consumer_count": 0, "messages": 0} | more.pop("state", {}),
        **more,
    }


def look(**more: Any) -> Look:
    """A board that is well but for this."""
    server = {"version": "2.12.0", "max_payload": 1 << 20}
    return Look(**{"settings": SETTINGS, "server": server, "streams": {"RUNS": stream()}, **more})


def found_in(seen: Look) -> list[Finding]:
    """The problems that all checks but that for the other streams see."""
    every = [finding for check in CHECKS for finding in check(seen)]
    return [one for one in every if one.level == "problem" and one.check != "streams"]


def pulse(host: str, **more: Any) -> Pulse:
    """A heartbeat."""
    return Pulse(host, at=0.0, node="here", pid=7, **more)


def test_nothing_is_wrong_with_what_the_next_tests_change() -> None:
    """So that each of them shows its own change."""
    assert found_in(look(alive=[pulse("h-1")])) == []


@pytest.mark.parametrize(
    ("change", "check", "says"),
    [
        ({"clock": 2.0, "clock_error": 0.1}, "clock", "+2.000 s"),
        ({"clock": -0.7, "clock_error": 0.1}, "clock", "-0.700 s"),
        (
            {"streams": {"RUNS": stream(config={"max_bytes": 100}, state={"bytes": 81})}},
            "limits",
            "81 of 100 bytes",
        ),
        (
            {"streams": {"RUNS": stream(config={"max_consumers": 10}, state={"consumer_count": 9})}},
            "limits",
            "9 of 10 consumers",
        ),
        (
            {"streams": {"RUNS": stream(cluster={"replicas": [{"name": "n2", "current": False}]})}},
            "limits",
            "copy of stream RUNS on n2",
        ),
        ({"account": {"storage": 90, "limits": {"max_storage": 100}}}, "limits", "90 of 100 bytes"),
        ({"disk": ("/data", GIB)}, "limits", "the disk of /data has 1.0 GiB left"),
        ({"alive": [pulse("h-1", late=1.5)]}, "hosts", "event loop of h-1 (here, pid 7)"),
        ({"vanished": [pulse("h-1")]}, "hosts", "vanished without a goodbye"),
    ],
)
def test_each_is_found(change: dict[str, Any], check: str, says: str) -> None:
    """With a text that names it and a fix."""
    (found,) = found_in(look(**change))
    assert (found.check, says in found.what, bool(found.fix)) == (check, True, True)


@pytest.mark.parametrize(
    "change",
    [
        {"clock": 2.0, "clock_error": 1.9},
        {"streams": {"RUNS": stream(config={"max_bytes": 100}, state={"bytes": 79})}},
        {"streams": {"RUNS": stream(config={"max_bytes": 100, "discard": "old"}, state={"bytes": 99})}},
        {"streams": {"RUNS": stream(cluster={"replicas": [{"name": "n2", "current": True}]})}},
        {"account": {"storage": 90, "limits": {"max_storage": -1}}},
        {"disk": ("/data", 3 * GIB)},
        {"vanished": [pulse("h-1")], "alive": [pulse("h-2")]},
        {"alive": [pulse("h-1", draining=True)]},
    ],
)
def test_what_looks_like_it_is_not(change: dict[str, Any]) -> None:
    """Within the limits, within the error of the measurement, or somebody else's task."""
    assert found_in(look(**change)) == []


def test_large_values_that_may_go_before_journals() -> None:
    """It is noted, since only values that are used again after long are concerned."""
    short = msgspec.structs.replace(SETTINGS, blob_max_age=SETTINGS.journal_max_age)
    for settings, count in ((short, 1), (SETTINGS, 0)):
        every = [finding for check in CHECKS for finding in check(look(settings=settings))]
        noted = [one for one in every if one.check == "ages"]
        assert [(one.level, "blob_max_age" in one.fix) for one in noted] == [("note", True)] * count


def test_what_waits_in_a_lane_of_a_host() -> None:
    """Is that host's: fine while it lives, a problem when it is gone."""
    calls = stream(state={"subjects": {"cb.call.add.h-1.1": 3, "cb.timer.x": 9}})
    alive = [pulse("h-1"), pulse("h-2", instances={"add": InstanceInfo()})]
    assert found_in(look(streams={"CALLS": calls}, alive=alive)) == []
    (found,) = found_in(look(streams={"CALLS": calls}, alive=alive[1:]))
    assert found.what.startswith("3 messages for add wait")


def test_what_nobody_will_ever_read() -> None:
    """Is told with its subjects, and how to drop it; what a host or a driver reads is not."""
    subjects = ["add", "add.any", "add.any.9", "add.any.1.2", "add.h-1.x", "a b.any.1", "add.any.1"]
    calls = stream(state={"subjects": {f"cb.call.{one}": 2 for one in subjects} | {"cb.timer.a.b": 9}})
    requests = stream(state={"subjects": {"cb.request.flow.more": 1, "cb.request.flow": 5}})
    alive = [pulse("h-1", instances={"add": InstanceInfo(), "flow": InstanceInfo(workflow=True)})]
    first, second = found_in(look(streams={"CALLS": calls, "REQUESTS": requests}, alive=alive))
    assert first.what == (
        "10 messages in CALLS on subjects that nobody reads: cb.call.a b.any.1, cb.call.add, cb.call.add.any, "
        "cb.call.add.any.1.2, cb.call.add.any.9"
    )
    assert "nats stream purge CALLS --subject 'cb.call.add.any.9' -f" in first.fix
    assert second.what == "1 message in REQUESTS on subjects that nobody reads: cb.request.flow.more"


def test_what_an_announced_actor_has_waiting() -> None:
    """Is not to be dropped: a host that runs it is all it needs."""
    calls = stream(state={"subjects": {"cb.call.add.any.1": 2}})
    (found,) = found_in(look(streams={"CALLS": calls}, actors=[ActorInfo("add", "tool", "v1")]))
    assert found.fix == "callboard host APP:add"


def test_timers_are_served_by_hosts_of_workflows() -> None:
    """Their consumer is no actor; what has fired waits for a host that drives any workflow."""
    calls = stream(state={"subjects": {"cb.call.callboard.any.1": 2}})
    drives = pulse("h-1", instances={"flow": InstanceInfo(workflow=True)})
    consumers = ["callboard_any_1", "flow_requests"]
    assert found_in(look(streams={"CALLS": calls}, alive=[drives], consumers=consumers)) == []
    (found, *_) = found_in(look(streams={"CALLS": calls}, alive=[pulse("h-2")]))
    assert found.what.startswith("2 messages for callboard wait")


def test_an_engine_that_is_down() -> None:
    """With the hosts that ask for it."""
    known = [ActorInfo("planner", "model", "v1")]
    well = pulse("h-0", instances={"planner": InstanceInfo(version="v1")})
    down = pulse("h-1", instances={"planner": InstanceInfo(version="v1", down=True)})
    assert found_in(look(actors=known, alive=[well])) == []
    (found,) = found_in(look(actors=known, alive=[well, down]))
    assert found.what == "the engine of model planner does not answer: on h-1"


def test_versions_of_an_actor() -> None:
    """Are told apart by actor, not by host."""

    def running(host: str, version: str) -> Pulse:
        return pulse(host, instances={"add": InstanceInfo(version=version)})

    known = [ActorInfo("add", "tool", "v1")]
    assert found_in(look(actors=known, alive=[running("h-1", "v1"), running("h-2", "v1")])) == []
    (found,) = found_in(look(actors=known, alive=[running("h-1", "v1"), running("h-2", "v2")]))
    assert found.what == "hosts run different code of add: v1 on h-1; v2 on h-2"
