"""Profiles of engines: those that are known, and those of files."""

from pathlib import Path

import msgspec
import pytest

from callboard.actors.emulator.profiles import PROFILES, profile
from callboard.infra.errors import SettingsInvalid


def test_a_profile_of_a_file(tmp_path: Path) -> None:
    """What was measured elsewhere is emulated without a change of code."""
    own = msgspec.structs.replace(PROFILES["cpu-smollm2"], name="own", step_ms=12.5)
    at = tmp_path / "own.json"
    at.write_bytes(msgspec.json.encode(own))
    assert profile(str(at)) == own


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "No such file"),
        ("{", "truncated"),
        ("{}", "missing required field `name`"),
        ('{"step_ms": 0}', "Expected `float` > 0.0"),
        ('{"decode_us": -1}', "Expected `float` >= 0.0"),
        ('{"max_sequences": 0}', "Expected `int` >= 1"),
        ('{"stepms": 3}', "unknown field `stepms`"),
    ],
)
def test_what_is_no_profile(tmp_path: Path, text: str | None, told: str) -> None:
    """The error names the file, and what is wrong."""
    at = tmp_path / "own.json"
    if text is not None:
        at.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsInvalid, match=told) as error:
        profile(str(at))
    assert str(at) in str(error.value)


def test_an_unknown_name() -> None:
    """It lists those that there are."""
    with pytest.raises(SettingsInvalid, match="cpu-smollm2, h100"):
        profile("none")
