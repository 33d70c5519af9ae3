"""What mypy and pyright say of right and wrong calls, through stubs and through declarations."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.actors.stubs.support import SAMPLES, declared_in, stubs_of

Found = dict[str, dict[int, str]]


@pytest.fixture
def project(market: ModuleType, tmp_path: Path) -> Path:
    """A repository that has the stubs, but none of the agents' code."""
    stubs = stubs_of(*(one for one in declared_in(market) if one.kind != "workflow"))
    (tmp_path / "board.py").write_text(stubs)
    for name in ("driver", "wrong", "declared"):
        (tmp_path / f"{name}.py").write_text((SAMPLES / f"{name}.py.txt").read_text())
    return tmp_path


def mypy(project: Path) -> Found:
    """Errors by file and line."""
    command = ["-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", "--cache-dir=.cache"]
    command += ["--config-file=", *sorted(path.name for path in project.glob("*.py"))]
    done = subprocess.run(
        [sys.executable, *command], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    found: Found = {}
    for name, line, text in re.findall(r"^([^:]+):(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        found.setdefault(name, {})[int(line)] = text
    return found


def pyright(project: Path) -> Found:
    """Errors by file and line, in pyright's strict mode but for values that are never used."""
    if shutil.which("node") is None:
        pytest.skip("pyright needs node")
    unused = ["reportUnusedVariable", "reportUnusedCoroutine", "reportUnusedExpression"]
    settings = {"typeCheckingMode": "strict", **dict.fromkeys(unused, "none")}
    (project / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    found: Found = {}
    for one in json.loads(done.stdout)["generalDiagnostics"]:
        if one["severity"] == "error":
            line = one["range"]["start"]["line"] + 1
            found.setdefault(Path(one["file"]).name, {})[line] = one["message"]
    return found


@pytest.mark.slow
@pytest.mark.timeout(400)  # type checkers begin without a cache
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_type_checkers_accept_right_calls_and_refuse_wrong_ones(project: Path, checker: object) -> None:
    """Errors stand exactly where a sample says so; the stubs and the driver have none."""
    assert callable(checker)
    found: Found = checker(project)
    for name in ("board.py", "driver.py", "wrong.py", "declared.py"):
        lines = (project / name).read_text().splitlines()
        wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
        errors = found.get(name, {})
        assert set(errors) == wrong, {n: errors.get(n, lines[n - 1]) for n in wrong ^ set(errors)}


@pytest.mark.slow
@pytest.mark.timeout(400)  # type checkers begin without a cache
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_change_of_the_agent_is_found_by_the_type_checker(project: Path, checker: object) -> None:
    """A driver that was right is wrong once the stubs are written again."""
    assert callable(checker)
    board = project / "board.py"
    board.write_text(
        board.read_text().replace(
            "def plan(\n        question: Arg[str]", "def plan(\n        query: Arg[int]"
        )
    )
    for name in ("wrong.py", "declared.py"):
        (project / name).unlink()
    errors = checker(project)
    assert list(errors) == ["driver.py"]
    lines = (project / "driver.py").read_text().splitlines()
    assert all("Analyst.plan(question" in lines[number - 1] for number in errors["driver.py"])
