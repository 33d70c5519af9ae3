"""Whoever looks at a board sees it, whatever anybody has published where only Callboard should."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import nats
import pytest
from tests.cli.terminal import APP, Running, Typed

from callboard.cli.exits import Exit
from callboard.infra import subjects
from callboard.infra.server import EmbeddedServer

RUN = "01M80D96ECFQJVBCRZ2J9HSWY8"
"""That nobody has made."""
PLACES = [
    subjects.registry("host.h-x"),
    subjects.registry("actor.x"),
    subjects.registry("actor.add"),
    subjects.registry("controller"),
    subjects.route("add"),
    subjects.session_route("add", "anna"),
    subjects.priority("anna"),
    subjects.admission("greet"),
    subjects.decided("1"),
    subjects.policy_leader(),
    subjects.policies(),
    subjects.policies_running(),
    subjects.runtime("add", "call", "0"),
    subjects.run_summary(RUN),
    subjects.question(RUN, "1"),
    subjects.state("Counter", "anna"),
    subjects.telemetry("h-x"),
    subjects.dead("add"),
    *(subjects.run(RUN, kind) for kind in ("request", "owner", "result.1", "done")),
    *(subjects.journal(RUN, kind) for kind in ("owner", "result.1", "done")),
]
BODIES = [b"\xff\xfe", b"{", b"[1,2]", b"\x81\xa1a\x01", b"\x91" * 3000, b"x" * 2000]
COMMANDS = [
    "actors",
    "doctor",
    "runs",
    f"show {RUN}",
    f"why {RUN}:1",
    "inbox",
    "dead list",
    "dead show 1",
    "route list",
    "admit list",
    "policy list",
    "policy log",
    "state list",
    "state show Counter anna",
    "state history Counter anna",
    "top --once",
    "telemetry record kept.jsonl",
    "stubs add",
]


@pytest.fixture(scope="module")
def littered() -> Iterator[str]:
    """A board with a host, and rubbish wherever something is stored."""

    async def litter(url: str) -> None:
        client = await nats.connect(url)
        for place in PLACES:
            for body in BODIES:
                await client.publish(place, body)
        await client.flush()
        await client.close()

    with EmbeddedServer() as server, Running("host", f"{APP}:greet", "--json", url=server.url) as host:
        host.until('"event":"host_ready"')
        asyncio.run(litter(server.url))
        yield server.url


@pytest.mark.parametrize("command", COMMANDS)
def test_rubbish_is_no_traceback(littered: str, typed: Typed, command: str) -> None:
    """What can be read is shown; what cannot is said, in words."""
    ran = typed(*command.split(), url=littered)
    assert ran.code in set(Exit)
    assert ran.out or ran.err


def test_the_doctor_tells_what_lies_in_the_registry(littered: str, typed: Typed) -> None:
    """And how to drop it."""
    found = {one["check"]: one for one in typed("doctor", "--json", url=littered).json}
    assert subjects.registry("host.h-x") in found["registry"]["what"]
    assert (
        f"nats stream purge KV_cb_registry --subject '{subjects.registry('host.h-x')}'"
        in (found["registry"]["fix"])
    )
    assert "greet" in typed("actors", url=littered).out
