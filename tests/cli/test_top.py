"""``callboard top`` and ``callboard controller``: what goes on, and who follows it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from tests.cli.terminal import Running, Typed, eventually

from callboard import connect_sync


def test_what_goes_on(board: str, typed: Typed, gate: Path) -> None:
    """Hosts, actors and runs, without any controller; calls that run are where they run."""
    with connect_sync(board) as client:
        run = client.submit("holds", {"gate": str(gate)})
        try:
            seen: dict[str, Any] = {}
            eventually(lambda: _running(typed, board, seen) == 1)
            assert [one["run"] for one in seen["runs"]] == [run]
            assert seen["leader"] == ""
            (host,) = seen["hosts"]
            assert host["running"] == 1
            eventually(lambda: run in typed("top", url=board).out)
            page = typed("top", url=board).out
            assert host["host"] in page
            assert "no controller" in page
        finally:
            gate.touch()
            client.result(run, timeout=20)


def _running(typed: Typed, url: str, seen: dict[str, Any]) -> int:
    seen.update(typed("top", "--json", url=url).json)
    running: int = seen["futures"]["running"]
    return running


def test_a_controller(board: str, typed: Typed) -> None:
    """It tells when it follows, leads, and ends in good order."""
    with Running("controller", "--json", url=board) as controller:
        told = controller.until('"event":"controller_ready"')
        assert "c-" in told
        eventually(lambda: typed("top", "--json", url=board).json["leader"] != "")
        controller.send(signal.SIGTERM)
        assert controller.wait() == 0
    assert typed("top", "--json", url=board).json["leader"] == ""
