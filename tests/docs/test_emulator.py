"""docs/emulator.md: its tables are the code's."""

from __future__ import annotations

import inspect
from typing import get_args

import msgspec
from tests.docs.pages import DOCS, ROOT, table

from callboard.actors.emulator.asked import ANSWER_TOKENS
from callboard.actors.emulator.faults import Fault, Kind
from callboard.actors.emulator.profiles import DEFAULT, PROFILES
from callboard.cli.emulate_engine import emulate_engine

PAGE = DOCS / "emulator.md"


def test_profiles() -> None:
    """Each with its model, and with a source in the code."""
    rows = table(PAGE, "Whose costs").records()
    assert {row["profile"].strip("`"): row["model"] for row in rows} == {
        name: profile.model for name, profile in PROFILES.items()
    }
    assert all(profile.source.startswith(("measured: ", "published: ")) for profile in PROFILES.values())


def test_defaults() -> None:
    """Of the command line, where the code has them too."""
    options = inspect.signature(emulate_engine).parameters
    assert options["profile"].default == DEFAULT
    assert options["answer_tokens"].default == ANSWER_TOKENS == 128
    assert options["listen"].default == "127.0.0.1"


def test_faults() -> None:
    """All kinds, and their defaults."""
    assert [cell.strip("`") for cell in table(PAGE, "Faults").column("kind")] == list(get_args(Kind))
    fault = Fault(kind="stall")
    assert (fault.after, fault.times, fault.status, fault.retry_after) == (3, 1, 429, 0.0)


def test_calibration() -> None:
    """What was recorded lies within 15 %."""
    kept = msgspec.json.decode((ROOT / "bench" / "calibration" / "cpu-smollm2.json").read_bytes())
    for load in kept["loads"]:
        for figure in ("p50_s", "p99_s", "tokens_per_s"):
            real, emulated = (load[side]["median"][figure] for side in ("real", "emulated"))
            assert abs(emulated / real - 1) <= 0.15, (load["load"], figure)
