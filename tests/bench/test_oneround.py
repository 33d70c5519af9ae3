import contextlib
import tempfile
from pathlib import Path

import msgspec
import psutil
import pytest

from bench.harness import Role, RoundFailed, load_cases
from bench.oneround import measure


def _working_in(folder: Path) -> list[psutil.Process]:
    """The processes whose command line names the folder: servers have their store there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_a_round_gives_a_sample() -> None:
    """A round of the floor runs in processes of its own and hands its sample over."""
    sample = measure(load_cases()["sequential"], Role.FLOOR, "asyncio")
    assert sample.values["p50"] > 0
    assert set(sample.cpu_s) == {"server", "worker", "client"}
    assert sample.cpu_ms_per_call


def test_a_round_that_takes_too_long_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to clean up after it: neither processes nor folders stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    late = msgspec.structs.replace(load_cases()["takeover"], timeout_s=1.5)
    with pytest.raises(RoundFailed, match=r"longer than 1\.5 s"):
        measure(late, Role.FLOOR, "asyncio")
    _, alive = psutil.wait_procs(_working_in(tmp_path), timeout=5)
    assert alive == []
    assert list(tmp_path.iterdir()) == []


def test_a_failed_round_names_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row gets the exception's line, not a traceback with paths."""
    monkeypatch.setenv("PYTHONPATH", "")
    unknown = msgspec.structs.replace(load_cases()["takeover"], name="no_such_case")
    with pytest.raises(RoundFailed, match=r"^KeyError: 'no_such_case'$"):
        measure(unknown, Role.FLOOR, "asyncio")
