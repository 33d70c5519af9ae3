"""docs/architecture.md names every file, and the figures that the code has."""

from __future__ import annotations

import re

import pytest
from tests.docs.pages import DOCS, ROOT

from callboard.actors import driver, feed, instance, mailbox
from callboard.infra.settings import Settings

PAGE = DOCS / "architecture.md"
TEXT = PAGE.read_text("utf-8")
FLOORS = {
    "infra": ROOT / "infra",
    "state": ROOT / "state",
    "actors": ROOT / "actors",
    "controller": ROOT / "controller",
    "face": ROOT / "src/callboard",
}


def section(floor: str) -> str:
    """What stands below a floor's heading."""
    return TEXT.partition(f"\n### {floor}\n")[2].partition("\n### ")[0]


def modules(floor: str) -> set[str]:
    """The files of a floor, and the packages in it, as the page names them."""
    folder = FLOORS[floor]
    if floor == "face":
        return {"__init__.py"} | {path.name for path in (folder / "cli").glob("[!_]*.py")}
    packages = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    return packages | {path.name for path in folder.glob("[!_]*.py")}


@pytest.mark.parametrize("floor", FLOORS)
def test_every_file_has_its_place(floor: str) -> None:
    """Those that exist, and no others."""
    named = {
        found.removeprefix("cli/") for found in re.findall(r"`((?:cli/)?\w+(?:\.py|/))`", section(floor))
    }
    assert named == modules(floor)


def test_files_named_in_the_text_exist() -> None:
    """Also those outside of the lists."""
    for found in re.findall(r"`(\w+/\w+\.py)`", TEXT):
        assert (ROOT / found).is_file() or (ROOT / "src/callboard" / found).is_file(), found


def test_figures() -> None:
    """The figures in the text are those of the code."""
    settings = Settings()
    assert (settings.pulse_every, settings.dead_after, settings.ack_wait) == (0.4, 1.3, 30.0)
    assert settings.max_deliver == 5
    assert (driver.SLOTS, driver._THREADS, driver._RESUMING) == (4096, 256, 16)
    assert driver._DEADLY * settings.max_deliver == 20
    assert (feed.AHEAD, feed.MOST_AHEAD, feed._FAIRNESS, instance.STUCK) == (0.01, 256, 8, 0.05)
    assert (mailbox.BAND, mailbox.STEP, mailbox.MOST) == (10.0, 1.0, 9)
