"""Resources: a host serves the instances for which it has enough, and says what it cannot serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.board import Board

from callboard import tool, workflow
from callboard.actors import registry
from callboard.actors.declared import declaration
from callboard.actors.host import Host
from callboard.actors.resources import Placed, ResourcesLacking, capacity, place, place_app
from callboard.infra.errors import DeclarationInvalid, SettingsInvalid
from callboard.infra.settings import Settings


@tool(resources={"gpu": 1})
async def embed(text: str) -> str:
    """Hold a model."""
    return text


@tool(resources={"gpu": 1, "memory_gb": 40})
async def generate(text: str) -> str:
    """Hold a larger one."""
    return text


@tool
async def plain(text: str) -> str:
    """Need nothing."""
    return text


@workflow
async def ask(text: str) -> str:
    """Call one of them."""
    return await embed(text)


def chosen(resources: dict[str, float], *required: str, every: bool = False) -> Placed:
    """What a host with so much makes of all of them."""
    found = [declaration(thing) for thing in (embed, generate, plain)]
    settings = Settings(resources=resources)
    return place([one for one in found if one], settings, None if every else set(required))


def names(placed: Placed) -> tuple[list[str], list[str]]:
    """Who is served and who is not."""
    return [one.name for one in placed.served], [one.name for one in placed.left_out]


@pytest.mark.parametrize(
    ("resources", "served", "left_out"),
    [
        ({}, ["plain"], ["embed", "generate"]),
        ({"gpu": 1, "memory_gb": 64}, ["embed", "plain"], ["generate"]),
        ({"gpu": 2, "memory_gb": 39}, ["embed", "plain"], ["generate"]),
        ({"gpu": 2, "memory_gb": 40}, ["embed", "generate", "plain"], []),
    ],
)
def test_what_fits_beside_the_others_is_served(
    resources: dict[str, float], served: list[str], left_out: list[str]
) -> None:
    """In the order of the application; what is left out is told of, and what to do."""
    with capture_logs() as logs:
        assert names(chosen(resources)) == (served, left_out)
    told = [entry for entry in logs if entry["event"] == "actor_left_out"]
    assert [entry["actor"] for entry in told] == left_out
    assert all("gpu=1" in entry["needs"] and "--resource" in entry["fix"] for entry in told)


def test_who_is_named_comes_first() -> None:
    """The others have what is left."""
    with capture_logs():
        placed = chosen({"gpu": 1, "memory_gb": 64}, "generate")
    assert names(placed) == (["generate", "plain"], ["embed"])


def test_who_is_named_and_does_not_fit_is_an_error() -> None:
    """Which says what is needed and what there is."""
    with pytest.raises(
        ResourcesLacking, match=r"tool generate needs gpu=1 memory_gb=40.*gpu=1 memory_gb=8"
    ) as e:
        chosen({"gpu": 1, "memory_gb": 8}, "generate")
    assert e.value.fields["free"] == {"gpu": 1.0, "memory_gb": 8.0}
    with pytest.raises(ResourcesLacking, match=r"generate.*free here is gpu=0"):
        chosen({"gpu": 1, "memory_gb": 64}, every=True)


def test_nothing_that_fits_is_an_error() -> None:
    """A host of nothing helps nobody."""
    declared = declaration(embed)
    assert declared is not None
    with pytest.raises(ResourcesLacking, match="embed"), capture_logs():
        place([declared], Settings(), set())


def test_what_a_host_has() -> None:
    """Cores and memory are the machine's, unless the settings say otherwise; other things they say."""
    found = capacity(Settings())
    assert set(found) == {"cpu", "memory_gb"}
    assert min(found.values()) > 0
    assert capacity(Settings(resources={"cpu": 3, "gpu": 2})) == {**found, "cpu": 3, "gpu": 2}


def test_fractions_add_up() -> None:
    """Ten tenths are one."""
    made = [tool(name=f"t{n}", resources={"gpu": 0.1})(plain.function) for n in range(10)]
    assert len(place(made, Settings(resources={"gpu": 1})).served) == 10


def test_amounts_are_read_from_the_environment(tmp_path: Path) -> None:
    """And from the settings file, as a table."""
    assert Settings.load({"CALLBOARD_RESOURCES": "gpu=2, memory_gb=64"}).resources == {
        "gpu": 2,
        "memory_gb": 64,
    }
    file = tmp_path / "callboard.toml"
    file.write_text("[resources]\ngpu = 4\n")
    assert Settings.load({}, file).resources == {"gpu": 4}


@pytest.mark.parametrize("text", ["gpu", "gpu=two", "gpu=-1"])
def test_wrong_amounts_are_refused(text: str) -> None:
    """With the settings."""
    with pytest.raises(SettingsInvalid, match="resource"):
        Settings.load({"CALLBOARD_RESOURCES": text})


def test_negative_needs_are_refused() -> None:
    """Where they are declared."""
    with pytest.raises(DeclarationInvalid, match="resources must be 0 or more: gpu"):
        tool(resources={"gpu": -1})(plain.function)


APP = """
from callboard import tool
@tool(resources={"gpu": 1})
async def heavy() -> int: return 1
@tool
async def light() -> int: return 2
"""


def test_an_actor_named_on_the_command_line_is_not_left_out(tmp_path: Path) -> None:
    """One that is only part of its application is."""
    app = tmp_path / "resources_app.py"
    app.write_text(APP)
    with capture_logs():
        placed = place_app([str(app)], Settings())
    assert names(placed) == (["light"], ["heavy"])
    with pytest.raises(ResourcesLacking, match="heavy"):
        place_app([f"{app}:heavy"], Settings())
    assert names(place_app([f"{app}:light"], Settings())) == (["light"], [])


async def test_a_host_announces_what_it_leaves_out(board: Board) -> None:
    """So that it is known to be missing; it serves the others."""
    with capture_logs():
        placed = chosen({})
    host = Host(placed.served, board.settings(), left_out=placed.left_out)
    board._hosts.append(host)
    await host.start()
    node = await board.node()
    known = {actor.name: actor.directives.get("resources") for actor in await registry.actors(node)}
    assert known == {"embed": {"gpu": 1.0}, "generate": {"gpu": 1.0, "memory_gb": 40.0}, "plain": None}
    (pulse,) = await registry.hosts(node)
    assert set(pulse.instances) == {"plain"}


async def test_a_host_that_is_given_too_much_does_not_start(board: Board) -> None:
    """From Python, all is named."""
    with pytest.raises(ResourcesLacking, match="embed"):
        await board.host(embed, ask)
    await board.host(embed, ask, resources={"gpu": 1})
    answer: Any = await board.run(ask, text="x")
    assert answer == "x"
