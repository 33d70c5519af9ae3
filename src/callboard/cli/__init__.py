"""The command line: ``callboard`` and ``python -m callboard``. One file per group of commands.

Importing this is cheap; each command loads what it needs when it is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and end the process with its exit code.

    Args:
        argv: the arguments; those of the process by default.
    """
    import sys

    from callboard.cli.commands import run

    sys.exit(run(sys.argv[1:] if argv is None else argv))
