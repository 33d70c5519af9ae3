"""A child process that ends with its owner: the owner's side of `callboard.infra.keeper`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from callboard.infra import keeper
from callboard.infra.errors import ServerStartFailed

_POLL: Final = 0.005  # s between looks at a file that says that the process is ready
_STOP_LIMIT: Final = keeper.GRACE + 2.0  # s


def tied(command: list[str]) -> list[str]:
    """A command that ends with this process, even after kill -9, and speaks on its own pipes."""
    return [sys.executable, "-I", "-S", keeper.__file__, keeper.TIED, str(os.getpid()), *command]


def jailed(command: list[str]) -> list[str]:
    """The same for a command that is not trusted: see `callboard.infra.keeper.jail`."""
    return [sys.executable, "-I", "-S", keeper.__file__, keeper.JAILED, str(os.getpid()), *command]


class KeptProcess:
    """A child process, held through its keeper; it ends with the process that made it.

    Args:
        command: what to run.
        home: working directory and the place of the lock file.
        log: the file to which the process's output is appended.
        scratch: removed when the owner vanishes without `end`; None for nothing.
        prepare: called once the lock is held, before the command runs: what may write in ``home``.

    Raises:
        ServerStartFailed: the lock is taken, or the command cannot be run.
        OSError: there is no place for the log, or what ``prepare`` raised.
    """

    def __init__(
        self,
        command: list[str],
        *,
        home: Path,
        log: Path,
        scratch: Path | None,
        prepare: Callable[[], None],
    ) -> None:
        self._home = home
        self._log = log
        self._command = command
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                self._keeper_command(scratch),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=home,
                start_new_session=True,  # Ctrl-C in a terminal reaches the owner, who drains first
                text=True,
            )
        try:
            self._require_lock()
            prepare()
            self.pid: Final = self._launch()
            """The child's process id (its keeper has another)."""
        except BaseException:
            self._discard_keeper()
            self._close()
            raise

    @property
    def alive(self) -> bool:
        """Whether the process is alive."""
        return self._keeper.poll() is None

    def wait(self, timeout: float | None) -> bool:
        """Wait at most ``timeout`` seconds for the end of the process; return whether it came."""
        try:
            self._keeper.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait_for(self, file: Path, timeout: float) -> bool:
        """Wait until the process has written a file that says that it is ready.

        Args:
            file: counts as written once it is not empty.
            timeout: seconds.

        Returns:
            Whether it has; False at once when the process ends before.
        """
        deadline = time.monotonic() + timeout
        while not _written(file):
            if self.wait(_POLL) or time.monotonic() >= deadline:
                return False
        return True

    def end(self, how: str) -> None:
        """End the process and wait until it is gone.

        Args:
            how: `keeper.STOP` (SIGTERM, and SIGKILL after the grace period) or `keeper.KILL`.
        """
        self._tell(how)
        if not self.wait(_STOP_LIMIT):
            # The pid is still the child's: only the keeper, which hangs, could have collected it.
            with suppress(OSError):
                os.kill(self.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
            self._discard_keeper()
        self._close()

    def _discard_keeper(self) -> None:
        self._keeper.kill()
        self._keeper.wait()

    def _close(self) -> None:
        for pipe in (self._keeper.stdin, self._keeper.stdout):
            with suppress(OSError):  # a command that was never read
                if pipe is not None:
                    pipe.close()

    def _keeper_command(self, scratch: Path | None) -> list[str]:
        return [
            sys.executable,
            "-I",
            "-S",
            keeper.__file__,
            str(os.getpid()),
            str(self._home / "server.lock"),
            str(scratch or ""),
            *self._command,
        ]

    def _tell(self, word: str) -> None:
        assert self._keeper.stdin is not None
        with suppress(OSError, ValueError):  # the keeper has ended already
            self._keeper.stdin.write(f"{word}\n")
            self._keeper.stdin.flush()

    def _hear(self) -> str:
        assert self._keeper.stdout is not None
        return self._keeper.stdout.readline().strip()

    def _require_lock(self) -> None:
        answer = self._hear()
        if answer == keeper.LOCKED:
            raise ServerStartFailed(
                f"Another server uses the store {self._home}. Stop it, connect to it through "
                "NATS_URL, or choose another store.",
                reason="store_locked",
                store_dir=str(self._home),
            )
        if answer != keeper.HELD:
            raise self._failed("its keeper has ended")

    def _launch(self) -> int:
        self._tell(keeper.START)
        answer = self._hear()
        if not answer.isdecimal():
            raise self._failed(answer.removeprefix(keeper.FAILED).strip() or "its keeper has ended")
        return int(answer)

    def _failed(self, why: str) -> ServerStartFailed:
        return ServerStartFailed(
            f"{self._command[0]} cannot be run: {why}. See {self._log}.",
            reason="exited",
            store_dir=str(self._home),
        )


def _written(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False
