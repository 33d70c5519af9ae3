"""The wheel: complete, nothing but `callboard`, and quick to import where no source is in reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("actors", "controller", "infra", "state")
FACE = PurePosixPath("src/callboard")
NOT_SHIPPED = {".md"}  # notes for those who read the sources

IMPORT_LIMIT = 0.3  # s
IMPORT_TRIES = 25
LOADED_WHEN_USED = ("aiohttp", "faststream", "httpx", "numpy", "requests", "uvicorn")

IMPORT_ALL = """
import importlib, pkgutil, callboard
for module in pkgutil.walk_packages(callboard.__path__, "callboard."):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)
        print(module.name)
"""
IMPORT_TIMED = """
import time
start = time.process_time()
import callboard
print(time.process_time() - start)
"""
IMPORT_ABSENT = """
import importlib, sys
try:
    importlib.import_module(sys.argv[1])
except ModuleNotFoundError as error:
    print(error.name)
"""


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the built wheel, out of reach of the sources.

    Args:
        scripts: where its interpreter and console scripts are.
        elsewhere: an empty directory to run in.
    """

    scripts: Path
    elsewhere: Path

    def python(self, code: str, *arguments: str) -> str:
        """Run Python code there and return what it printed."""
        return self.command("python", "-c", code, *arguments)

    def command(self, name: str, *arguments: str) -> str:
        """Run one of its programs and return what it printed."""
        return run(str(self.scripts / name), *arguments, cwd=self.elsewhere)


def run(*command: str, cwd: Path) -> str:
    """Run a command to its end and return what it printed; a failure shows all of its output."""
    # Bytecode is written even where the caller's environment forbids it: start-up is measured.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def pip(*arguments: str, cwd: Path) -> None:
    """Run pip without any index."""
    run(sys.executable, "-m", "pip", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file that is in the repository or about to be, relative to its root."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY)
    files = [Path(name) for name in listed.split("\0") if name]
    return [file for file in files if os.path.lexists(REPOSITORY / file)]


@pytest.fixture(scope="module")
def wheel(tracked: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the repository so that no leftover gets in."""
    copy, target = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("wheel")
    for file in tracked:
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / file, copy / file, follow_symlinks=False)
    offline = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    pip("wheel", *offline, "--wheel-dir", str(target), str(copy), cwd=copy)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An environment with the wheel; what it depends on is lent by the running environment."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    paths = {"base": str(home), "platbase": str(home)}
    scripts = Path(sysconfig.get_path("scripts", "venv", paths))
    # A directory named in a .pth file is searched, but its own .pth files are not read: the
    # editable installation in the running environment stays unseen.
    lent = Path(sysconfig.get_path("purelib", "venv", paths), "lent.pth")
    lent.write_text(sysconfig.get_path("purelib"))
    offline = ["--quiet", "--no-deps", "--no-index"]
    pip("--python", str(scripts / "python"), "install", *offline, str(wheel), cwd=home)
    return Installation(scripts, tmp_path_factory.mktemp("elsewhere"))


def place_in_wheel(file: PurePosixPath) -> PurePosixPath | None:
    """Return where a file of the repository belongs in the wheel, None if it does not."""
    if file.suffix in NOT_SHIPPED:
        return None
    if file.parts[0] in FOLDERS:
        return "callboard" / file
    if file.is_relative_to(FACE) and file.relative_to(FACE).name not in FOLDERS:
        return "callboard" / file.relative_to(FACE)
    return None


def test_holds_every_source_and_nothing_else(tracked: list[Path], wheel: Path) -> None:
    """All sources are in, by their import name; a checkout without links would build it empty."""
    with zipfile.ZipFile(wheel) as archive:
        held = {PurePosixPath(name) for name in archive.namelist()}
    sources = {place_in_wheel(PurePosixPath(file.as_posix())) for file in tracked} - {None}
    shipped = {file for file in held if ".dist-info" not in file.parts[0]}
    assert len(sources) > len(FOLDERS)
    assert shipped == sources, "data files need a pattern in [tool.setuptools.package-data]"


def test_every_module_can_be_imported(installation: Installation) -> None:
    """What was installed is complete: no module needs a file of the repository."""
    imported = installation.python(IMPORT_ALL).split()
    assert {f"callboard.{folder}" for folder in FOLDERS} <= set(imported)


def test_is_what_is_imported(installation: Installation) -> None:
    """The tests here look at the wheel, not at the sources."""
    place = Path(installation.python("import callboard; print(callboard.__file__)").strip())
    assert place.is_relative_to(installation.scripts.parent)


@pytest.mark.parametrize("folder", [*FOLDERS, "bench", "examples", "tests"])
def test_puts_no_other_name_into_the_environment(installation: Installation, folder: str) -> None:
    """The folders' own names stay free for whoever installs Callboard."""
    assert installation.python(IMPORT_ABSENT, folder).strip() == folder


def test_brings_its_command(installation: Installation) -> None:
    """The console script starts."""
    assert "callboard" in installation.command("callboard", "--help").lower()


def test_is_typed(installation: Installation) -> None:
    """Type checkers of others read Callboard's annotations."""
    code = "import callboard, pathlib; print(pathlib.Path(callboard.__file__).parent / 'py.typed')"
    assert Path(installation.python(code).strip()).is_file()


def test_import_is_quick(installation: Installation) -> None:
    """The best of several imports stays below the limit, so that scripts and shells do not wait.

    It waits for nothing: the time of the processor is all that it takes where nothing else is done.
    """
    tries = (float(installation.python(IMPORT_TIMED)) for _ in range(IMPORT_TRIES))
    assert any(took < IMPORT_LIMIT for took in tries)


def test_import_leaves_heavy_packages_alone(installation: Installation) -> None:
    """What is only sometimes needed is loaded when it is used."""
    loaded = installation.python("import callboard, sys; print(*sys.modules)").split()
    assert not set(loaded) & set(LOADED_WHEN_USED)
