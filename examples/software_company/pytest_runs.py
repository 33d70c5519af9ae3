"""Running tests that a model has written, on code that a model has written: pytest, in a sandbox."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from callboard import Sandbox, Terminal, tool

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_PASSED = re.compile(r"^\d+ passed", re.MULTILINE)
_TOLD = 4000


@dataclass
class Report:
    """What pytest said; of a long output the end."""

    passed: bool
    output: str


class BadName(Terminal):
    """A module cannot be called so."""


@tool(sandbox=Sandbox(cpu_s=30, wall_s=90, output=1 << 20))
def run_tests(module: str, source: str, tests: str) -> Report:
    """Run a test file against a module.

    It runs in a process of its own, in an empty folder, with limits and without the host's environment. For
    what that does not protect from, see docs/tools.md: run this tool's host in a container, too.
    """
    if not _NAME.fullmatch(module) or module in {"pytest", "test_product"} | set(sys.stdlib_module_names):
        raise BadName(f"{module!r} cannot be the name of the module")
    Path(f"{module}.py").write_text(source, encoding="utf-8")
    Path("test_product.py").write_text(tests, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
    done = subprocess.run(  # within the limits of this process
        [*command, "test_product.py"],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    # A module that ends the process makes no test pass.
    passed = done.returncode == 0 and _PASSED.search(done.stdout) is not None
    return Report(passed, done.stdout[-_TOLD:])
