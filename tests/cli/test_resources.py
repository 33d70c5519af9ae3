"""What a host has: ``callboard host --resource``, and who is told what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.terminal import Running, Typed, callboard, eventually

from callboard.cli.exits import Exit

CODE = """
from callboard import tool
@tool(resources={"gpu": 2})
async def heavy() -> int: return 1
@tool
async def light() -> int: return 2
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An application of which one part needs two GPUs."""
    file = tmp_path / "needy_app.py"
    file.write_text(CODE)
    return file


def test_what_a_host_has_not_enough_for_is_left_out_and_missed(
    app: Path, nats_url: str, typed: Typed
) -> None:
    """Its log says so, ``doctor`` and ``actors`` show who lacks a host; one that has enough serves it."""
    with Running("host", app, "--json", "--resource", "gpu=1", url=nats_url) as small:
        assert json.loads(small.until('"event":"host_ready"'))["actors"] == ["light"]
        notes = [one for one in typed("doctor", "--json", url=nats_url).json if one["check"] == "actors"]
        assert [one["what"] for one in notes] == ["tool heavy runs on no host, and needs gpu=2"]
        assert "--resource" in notes[0]["fix"]
        listed = {one["name"]: one["hosts"] for one in typed("actors", "--json", url=nats_url).json}
        assert listed["heavy"] == {}
        assert len(listed["light"]) == 1
        with Running("host", app, "--json", "--resource", "gpu=2", url=nats_url) as large:
            assert json.loads(large.until('"event":"host_ready"'))["actors"] == ["heavy", "light"]
            eventually(lambda: "heavy" not in typed("doctor", url=nats_url).out)


def test_an_actor_that_is_named_must_fit(app: Path, nats_url: str) -> None:
    """Else the host says what is missing, and ends."""
    ended = callboard("host", f"{app}:heavy", "--json", url=nats_url)
    assert ended.code == Exit.FAILED
    error = json.loads(ended.out)["error"]
    assert error["code"] == "resources_lacking"
    assert error["fields"]["needs"] == {"gpu": 2.0}


def test_a_resource_is_a_name_and_a_number(app: Path, nats_url: str) -> None:
    """Anything else is told at once."""
    ended = callboard("host", app, "--resource", "gpu", url=nats_url)
    assert ended.code != Exit.OK
    assert "gpu=2" in ended.err
