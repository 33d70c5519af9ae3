"""One round of one role, in processes of its own, so that no round inherits another's heap.

`measure` starts the process; `python -m bench.oneround CASE ROLE OUT` is what it runs.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from bench import loops
from bench.harness import Case, Role, RoundFailed, Sample, load_cases
from bench.processes import ROOT

ERROR_LINES = 20


def measure(chosen: Case, role: Role, loop: str) -> Sample:
    """Run one round and wait for it; its folders lie in one that is removed even if it is killed.

    Args:
        chosen: the case.
        role: which side.
        loop: event loop of the client and of the floor's worker, one of `loops.LOOPS`.

    Raises:
        RoundFailed: it ended with an error or took longer than the case permits.
    """
    side = Role.CALLBOARD if chosen.alike else role
    with tempfile.TemporaryDirectory(prefix="callboard-bench-") as folder:
        out = Path(folder) / "sample.json"
        round_process = subprocess.Popen(
            [sys.executable, "-m", "bench.oneround", chosen.name, role.value, str(out)],
            cwd=ROOT,
            env={**os.environ, loops.LOOP: loops.of(side.value, loop), "TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        output = _wait(round_process, chosen)
        if round_process.returncode or not out.exists():
            raise RoundFailed(_reason(output))
        return msgspec.json.decode(out.read_bytes(), type=Sample)


def _reason(output: str) -> str:
    """The last line, for the row; the last lines go to standard error, since they hold paths."""
    last = output.strip().splitlines()[-ERROR_LINES:] or ["the round ended without a word"]
    print("\n".join(last), file=sys.stderr)
    return last[-1].replace(str(ROOT), ".")


def _wait(round_process: subprocess.Popen[str], chosen: Case) -> str:
    """Its output, once it has ended; what it leaves behind when it is killed is killed with it."""
    try:
        return round_process.communicate(timeout=chosen.timeout_s)[0]
    except subprocess.TimeoutExpired as late:
        raise RoundFailed(f"took longer than {chosen.timeout_s:g} s") from late
    finally:
        if round_process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(round_process.pid, signal.SIGKILL)
            round_process.communicate()


def main() -> None:
    """Measure what the command line says and write the sample to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case")
    parser.add_argument("role", type=Role)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    sample = loops.run(load_cases()[arguments.case].measure(arguments.role))
    arguments.out.write_bytes(msgspec.json.encode(sample))


if __name__ == "__main__":
    main()
