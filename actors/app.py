"""Loading an application: ``app.py``, ``pkg/app.py`` or ``pkg.app``, and which of its actors."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from callboard.actors.declared import Declaration, Workflow, declaration
from callboard.infra.errors import CallboardError, UnknownActor

_MACHINERY = ("importlib._bootstrap>", "importlib._bootstrap_external>", f"importlib{os.sep}__init__.py")


class AppUnloadable(CallboardError):
    """An application cannot be imported or declares nothing, or one of its agents cannot be made.

    Fields: app, reason (``missing``, ``import_failed``, ``shadowed``, ``ambiguous``, ``empty`` or
    ``not_made``), traceback (of the application's own code, where it raised).
    """

    code = "app_unloadable"


class App:
    """A loaded application.

    Attributes:
        spec: as it was named; module: the imported one.
        declarations: the chosen actors and workflows, in the order of the module.
    """

    def __init__(self, spec: str, module: ModuleType, declarations: list[Declaration]) -> None:
        self.spec = spec
        self.module = module
        self.declarations = declarations

    @property
    def workflows(self) -> list[Workflow[..., object]]:
        """Its workflows."""
        return [one for one in self.declarations if isinstance(one, Workflow)]

    def workflow(self, name: str) -> Workflow[..., object]:
        """One of its workflows.

        Raises:
            UnknownActor: there is none of that name.
        """
        workflows = {one.name: one for one in self.workflows}
        if name not in workflows:
            raise unknown("workflow", name, workflows, f"in {self.spec}")
        return workflows[name]


def unknown(kind: str, name: str, known: Iterable[str], where: str) -> UnknownActor:
    """The error for a name that is not there, with what was probably meant."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"there is: {', '.join(names) or 'nothing'}"
    return UnknownActor(f"there is no {kind} {name!r} {where}; {hint}", actor=name)


def load_all(specs: Sequence[str]) -> list[Declaration]:
    """What several applications declare together; the same actor may be named twice.

    Raises:
        AppUnloadable, UnknownActor: as for :func:`load`; also if two different actors share a name.
    """
    return _unique((d for spec in specs for d in load(spec).declarations), ", ".join(specs))


def load(spec: str) -> App:
    """Import an application under its real dotted name, so that other processes can do the same.

    Args:
        spec: a path or a dotted module, then optionally ``:`` and names of actors (or of the module's
            attributes) separated by commas; without names it means all of them.

    Raises:
        AppUnloadable: it cannot be imported or declares nothing.
        UnknownActor: it has no actor of that name.
    """
    place, names = split(spec)
    module = _import(spec, place)
    found = _unique(_declared(module), place)
    if not found:
        raise AppUnloadable(
            f"{place} declares nothing: mark a class with @agent or a function with @tool or @workflow",
            app=spec,
            reason="empty",
        )
    return App(spec, module, _chosen(module, found, names, place) if names else found)


def split(spec: str) -> tuple[str, list[str]]:
    """The place and the names of a spec."""
    place, colon, names = spec.rpartition(":")
    if not colon or os.sep in names:  # the colon of a drive
        return spec, []
    return place, [name for name in names.split(",") if name]


def home(place: str) -> tuple[Path, str]:
    """The directory that must be importable, and the dotted name of the module in it."""
    if not _is_path(place):
        return Path.cwd(), place
    path = Path(place).resolve()
    parts = [] if path.is_dir() or path.name == "__init__.py" else [path.stem]
    folder = path if path.is_dir() else path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def _is_path(place: str) -> bool:
    return place.endswith(".py") or os.sep in place or Path(place).is_dir()


def source_folder(spec: str) -> Path:
    """The folder in which the application's file is, or would be."""
    folder, name = home(split(spec)[0])
    path = folder.joinpath(*name.split("."))
    while not path.is_dir() and path != folder:
        path = path.parent
    return path


def _import(spec: str, place: str) -> ModuleType:
    folder, name = home(place)
    if not name or (_is_path(place) and not Path(place).exists()):
        raise AppUnloadable(
            f"there is no application at {place}: give a file such as app.py, or a module such as pkg.app",
            app=spec,
            reason="missing",
        )
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _import_failed(spec, place, name, error) from error
    if _is_path(place) and not _same_file(module, Path(place)):
        raise AppUnloadable(
            f"{place} cannot be imported as {name!r}, which is {module.__file__} already: rename the file",
            app=spec,
            reason="shadowed",
        )
    return module


def _import_failed(spec: str, place: str, name: str, error: BaseException) -> AppUnloadable:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
        return AppUnloadable(
            f"there is no module {error.name!r} to import from {Path.cwd()}: give a file such as app.py, "
            "or a module such as pkg.app",
            app=spec,
            reason="missing",
        )
    return AppUnloadable(
        f"{place} cannot be imported: {type(error).__name__}: {error}",
        app=spec,
        reason="import_failed",
        traceback=own_traceback(error),
    )


def own_traceback(error: BaseException) -> str:
    """The traceback without the frames of this file and of the import machinery."""
    own = traceback.TracebackException.from_exception(error)
    own.stack = traceback.StackSummary.from_list(
        [f for f in own.stack if f.filename != __file__ and not f.filename.endswith(_MACHINERY)]
    )
    return "".join(own.format())


def _same_file(module: ModuleType, path: Path) -> bool:
    if module.__file__ is None:
        return False
    wanted = path / "__init__.py" if path.is_dir() else path
    return Path(module.__file__).resolve() == wanted.resolve()


def _declared(module: ModuleType) -> list[Declaration]:
    return [found for found in map(declaration, vars(module).values()) if found is not None]


def _unique(declared: Iterable[Declaration], where: str) -> list[Declaration]:
    known: dict[str, Declaration] = {}
    for found in declared:
        if known.setdefault(found.name, found) is not found:
            raise AppUnloadable(
                f"two different actors in {where} are named {found.name!r}: give one another name with name=",
                app=where,
                reason="ambiguous",
            )
    return list(known.values())


def _chosen(module: ModuleType, found: list[Declaration], names: list[str], place: str) -> list[Declaration]:
    by_name = {d.name: d for d in found}
    attributes = {key: d for key, value in vars(module).items() if (d := declaration(value)) is not None}
    known = attributes | by_name
    for name in names:
        if name not in known:
            raise unknown("actor", name, known, f"in {place}")
    return _unique((known[name] for name in names), place)
