"""``callboard emulate-engine``."""

from __future__ import annotations

import json

import httpx2
from tests.cli.terminal import Running, Typed

from callboard.cli.exits import Exit


def test_it_answers_at_its_port() -> None:
    """The first line tells where; it ends when it is told to."""
    with Running("emulate-engine", "--profile", "h100-llama-3.1-8b", "--json", url="") as running:
        told = json.loads(running.until('"event":"emulator_ready"').splitlines()[0])
        assert told["url"].startswith("http://127.0.0.1:")
        (card,) = httpx2.get(f"{told['url']}/models").json()["data"]
        assert (card["id"], card["emulator"]["profile"]) == (told["model"], "h100-llama-3.1-8b")


def test_a_profile_that_there_is_not(typed: Typed) -> None:
    """Those that there are, are listed."""
    ran = typed("emulate-engine", "--profile", "abacus")
    assert ran.code == Exit.USAGE
    assert "h100-llama-3.1-8b" in ran.err
