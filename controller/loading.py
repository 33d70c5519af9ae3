"""Policies by name, or by file and class."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
import uuid
from pathlib import Path
from types import ModuleType

from callboard.controller import policies
from callboard.controller.limited import limited
from callboard.controller.policy import Policy
from callboard.infra.errors import PolicyTooSlow, PolicyUnusable

LIMIT = 5.0
"""Seconds that a policy has to be loaded, with all that its file imports."""


def names() -> list[str]:
    """The policies that come with Callboard."""
    return sorted(module.name for module in pkgutil.iter_modules(policies.__path__))


def load(name: str) -> Policy:
    """Make a policy.

    Args:
        name: one of :func:`names`, or ``FILE:CLASS``.

    Raises:
        PolicyUnusable: there is none, or it cannot be made, or not within :data:`LIMIT`.
    """
    try:
        return limited(LIMIT, lambda: _load(name), "been loaded")
    except PolicyTooSlow as error:
        raise _unusable(name, f"{error}: see what its file does when it is imported") from error


def _load(name: str) -> Policy:
    path, colon, chosen = name.rpartition(":")
    try:
        if colon:
            return _made(_of_file(Path(path)), chosen, name)
        if name in names():
            return _made(importlib.import_module(f"{policies.__name__}.{name}"), "", name)
    except PolicyUnusable:
        raise
    except (Exception, SystemExit) as error:
        raise _unusable(name, f"{type(error).__name__}: {error}") from error
    raise _unusable(name, f"there is no such policy; give FILE:CLASS, or one of {', '.join(names())}")


def reason(policy: Policy) -> str:
    """What is said of its decisions that have no reason of their own."""
    text = inspect.getdoc(type(policy)) or ""
    return text.partition("\n")[0]


def _of_file(path: Path) -> ModuleType:
    """A file as a module, read anew each time; what it imports is not."""
    spec = importlib.util.spec_from_file_location(f"callboard_policy_{uuid.uuid4().hex}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path.resolve()} is no Python file")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # what stands beside it can be imported
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _made(module: ModuleType, chosen: str, name: str) -> Policy:
    found = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Policy) and value.__module__ == module.__name__
    }
    if chosen not in found and (chosen or len(found) != 1):
        raise _unusable(name, f"it has no class {chosen} that derives from Policy; it has {list(found)}")
    made: Policy = found[chosen]() if chosen else next(iter(found.values()))()
    every: object = made.every  # as somebody has written it
    if not isinstance(every, int | float) or not every >= 0:
        raise _unusable(name, f"'every' is a number of seconds, 0 or more, not {every!r}")
    return made


def _unusable(name: str, problem: str) -> PolicyUnusable:
    return PolicyUnusable(f"policy {name} cannot be used: {problem}", policy=name, problem=problem)
