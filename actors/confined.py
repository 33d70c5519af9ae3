"""The process of a sandboxed handler: takes its limits, runs one call, and writes the outcome.

Started as a script by :mod:`callboard.actors.confine`. Standard input holds a line of JSON, which says what
to run and within which limits, and then the arguments. The outcome goes to what is standard output at the
start; what the handler prints goes to standard error.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from typing import Any


def limit(cpu_s: float, memory: int, file_size: int, processes: int | None) -> None:
    """Take limits that only the superuser could lift again."""
    used = math.ceil(time.process_time() + cpu_s)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (used, used + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    if processes is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def main() -> None:
    """Run the call."""
    told: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    body = sys.stdin.buffer.read()
    wire = os.dup(1)
    os.dup2(2, 1)
    sys.path[:] = told["path"]
    from callboard.actors.execute import run_in_process

    limit(**told["limits"])
    module, name, method = told["address"]
    ok, outcome = run_in_process(module, name, method, body, told["prefix"])
    with os.fdopen(wire, "wb") as out:
        out.write(b"+" if ok else b"-")
        out.write(outcome)


if __name__ == "__main__":
    main()
