"""Keep one child process for an owner: report its end, and end it when the owner is gone.

`callboard.infra.server` runs this file as a script, in a process of its own, so that the child
ends with its owner even after kill -9. The operating system's own means will not do: Linux's
parent-death signal fires when the *thread* that forked ends, and other systems have none. Here the
keeper has one forking thread that never ends, reads a pipe whose other end only the owner holds,
and, on Linux, also watches the owner itself, since a process forked from the owner may keep that
pipe open.

Only the standard library: the keeper starts in some 20 ms and stays small.

Usage: ``keeper.py OWNER_PID LOCK_FILE SCRATCH_DIR COMMAND...``, or ``keeper.py --tied OWNER_PID COMMAND...``
for a child that speaks with the owner on standard input and output: see `tie`. ``--jailed`` is the same for
one that is not trusted: see `jail`.

- ``OWNER_PID``: the process to watch.
- ``LOCK_FILE``: held, by keeper and child, for as long as one of them lives.
- ``SCRATCH_DIR``: removed when the owner vanished without a word; empty for nothing.

It says ``held`` on standard output once it has the lock, or ``locked`` and ends; told ``start``, it
starts the command and says its pid, or ``failed`` and the reason. From then on ``stop`` on standard
input ends the child gently, ``kill`` at once, and the end of input means that the owner is gone. When the
child has ended, so is what it has left in its process group. The keeper exits with the child's exit code.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

HELD: Final = "held"
"""What the keeper says when it has the lock file."""

LOCKED: Final = "locked"
"""What the keeper says when another one holds the lock file."""

FAILED: Final = "failed"
"""What the keeper says, with the reason behind it, when the command cannot be started."""

START: Final = "start"
"""What the owner says to have the command started."""

STOP: Final = "stop"
"""What the owner says to end the child gently."""

KILL: Final = "kill"
"""What the owner says to end the child at once."""

TIED: Final = "--tied"
"""The argument that says that the child speaks with the owner itself."""

JAILED: Final = "--jailed"
"""The argument that says that the child is not trusted either."""

GRACE: Final = 5.0
"""How long a child may take to end gently before it is killed, in seconds."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def lock(path: str) -> int | None:
    """Take the lock file and return its descriptor, or None when somebody else holds it.

    On Windows there is no lock: the server itself keeps its files open there.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
    return descriptor


def die_with_keeper(how: signal.Signals = signal.SIGTERM) -> Callable[[], None] | None:
    """Return what the child does between fork and exec to end with the keeper; None: nothing."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    keeper = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, how, 0, 0, 0)
        if os.getppid() != keeper:  # the keeper died before the signal was asked for
            os._exit(1)

    return ask


def spawn(command: list[str], lock_descriptor: int) -> subprocess.Popen[bytes]:
    """Start the child: its output goes to the keeper's standard error, the lock goes along.

    It leads a process group, so that what it leaves behind can be found. Must run while the keeper has one
    thread only, and in the thread that lives longest.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        stderr=sys.stderr.fileno(),
        pass_fds=() if sys.platform == "win32" else (lock_descriptor,),
        process_group=None if sys.platform == "win32" else 0,
        preexec_fn=die_with_keeper(),  # noqa: PLW1509 - there is no second thread yet
    )


def sweep(leader: int) -> None:
    """End at once what a child that has just ended has left in its group: such as workers of an engine."""
    if sys.platform != "win32":
        with suppress(OSError):  # nothing is left; a number that was just freed is not given again so soon
            os.killpg(leader, signal.SIGKILL)


def end(child: subprocess.Popen[bytes]) -> None:
    """End the child gently, and after the grace period at once."""
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()


def wait_for_owner(owner: int, gone: Callable[[], None]) -> None:
    """Call ``gone`` when the owner has ended. Returns at once where it cannot be watched."""
    if not sys.platform.startswith("linux"):
        return
    try:
        descriptor = os.pidfd_open(owner)
    except ProcessLookupError:
        gone()
        return
    except OSError:  # a kernel before 5.3, or a sandbox that forbids it: the pipe alone must do
        return
    if os.getppid() == owner:  # otherwise the number belongs to somebody else by now
        select.select([descriptor], [], [])
    gone()


def tie(owner: int, command: list[str]) -> None:
    """Run a command on the keeper's own standard input and output; never returns.

    The keeper leads a process group. When the owner has gone the child is ended, gently and after the
    grace period at once; when the child has ended, so is all that it has left in the group.
    """
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    try:
        child = subprocess.Popen(command, preexec_fn=die_with_keeper())  # noqa: PLW1509 - as in `spawn`
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be run: {error}\n")
        sys.exit(127)
    threading.Thread(target=wait_for_owner, args=(owner, lambda: end(child)), daemon=True).start()
    child.wait()
    os.killpg(0, signal.SIGKILL)


def jail(owner: int, command: list[str]) -> None:
    """Run a command that is not trusted, and end it at once: it may not want to; never returns.

    It leads a process group of its own. When it has ended, or the owner has gone, or the keeper is told to
    terminate, all of the group is killed, and, on Linux, whatever has left it. It exits with the child's exit
    code, 128 and its number where that was a signal.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become the keeper's
    told = threading.Event()
    group: list[int] = []

    def kill(*_: object) -> None:
        told.set()
        for leader in group:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)

    signal.signal(signal.SIGTERM, kill)
    child = subprocess.Popen(
        command,
        process_group=0,
        preexec_fn=die_with_keeper(signal.SIGKILL),  # noqa: PLW1509 - as in `spawn`
    )
    group.append(child.pid)
    if told.is_set():
        kill()
    threading.Thread(target=wait_for_owner, args=(owner, kill), daemon=True).start()
    code = child.wait()
    kill()
    while orphans := _children():
        for pid in orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
    os._exit(code if code >= 0 else 128 - code)


def _children() -> list[int]:
    """The processes whose parent the keeper is; none where the system does not tell."""
    found: list[int] = []
    for told in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, told.read_text().split())
    return found


def say(word: str) -> None:
    """Tell the owner."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Run the keeper; never returns (see the module's text for the arguments)."""
    if arguments[0] == JAILED:
        jail(int(arguments[1]), arguments[2:])
    if arguments[0] == TIED:
        tie(int(arguments[1]), arguments[2:])
    owner, lock_file, scratch, *command = arguments
    descriptor = lock(lock_file)
    if descriptor is None:
        say(LOCKED)
        sys.exit(1)
    say(HELD)
    if sys.stdin.readline().strip() != START:
        sys.exit(1)
    try:
        child = spawn(command, descriptor)
    except OSError as error:
        say(f"{FAILED} {error}")
        sys.exit(1)
    say(str(child.pid))

    abandoned = threading.Event()

    def abandon() -> None:
        abandoned.set()
        end(child)

    def follow_child() -> None:
        code = child.wait()
        sweep(child.pid)
        if abandoned.is_set() and scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        os._exit(code if code >= 0 else 128 - code)

    threading.Thread(target=follow_child).start()
    threading.Thread(target=wait_for_owner, args=(int(owner), abandon), daemon=True).start()
    obey(child, abandon)
    threading.Event().wait()  # the forking thread must outlive the child


def obey(child: subprocess.Popen[bytes], abandon: Callable[[], None]) -> None:
    """Carry out what the owner says until its end of the pipe closes."""
    for line in sys.stdin:
        if line.strip() == KILL:
            child.kill()
        else:
            end(child)
    abandon()


if __name__ == "__main__":
    main(sys.argv[1:])
