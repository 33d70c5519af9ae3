"""Loading the samples, and writing stubs of them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from callboard.actors.declared import Declaration, declaration
from callboard.actors.registry import describe
from callboard.actors.stubs.module import write

SAMPLES = Path(__file__).parent / "samples"

Load = Callable[[str, str], ModuleType]


def imported(name: str, path: Path) -> ModuleType:
    """Import a file under a name of our choice."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def declared_in(module: ModuleType) -> list[Declaration]:
    """All declarations of a module, by name."""
    found = {d.name: d for d in map(declaration, vars(module).values()) if d is not None}
    return [found[name] for name in sorted(found)]


def stubs_of(*declared: Declaration) -> str:
    """The module of stubs for these, without a server in between."""
    return write([describe(one) for one in declared], everything=False)
