"""Running a handler in a sandbox: a process of its own for each call, with limits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors.alone import process_address
from callboard.actors.failures import restore
from callboard.infra.errors import (
    SandboxCpuExceeded,
    SandboxCrashed,
    SandboxExceeded,
    SandboxFileExceeded,
    SandboxMemoryExceeded,
    SandboxOutputExceeded,
    SandboxTimeExceeded,
)
from callboard.infra.kept import jailed
from callboard.infra.messages.run import ErrorInfo

if TYPE_CHECKING:
    from callboard.actors.declared import Method
    from callboard.actors.sandbox import Sandbox

_CHILD = str(Path(__file__).with_name("confined.py"))
_TAIL = 2000
_SIGNALLED = 128


class _TooMuch(Exception):
    """It says more than it may."""


async def run(method: Method, sandbox: Sandbox, body: bytes, prefix: str) -> Any:
    """Run one call; cancelling this ends the process and all that it has started.

    Args:
        body: the arguments, encoded; prefix: of the ids of its calls, of which there are none.

    Raises:
        DeclarationInvalid: it is not declared at the top of a module.
        SandboxExceeded: it took more than it may; the class says of what.
        SandboxCrashed: it ended without an outcome.
        BaseException: what the handler raised.
    """
    task = _task(sandbox, process_address(method), prefix) + body
    home = await asyncio.to_thread(tempfile.mkdtemp, prefix="callboard-sandbox-")
    try:
        ok, outcome = await _outcome(method.where, sandbox, home, task)
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, home, ignore_errors=True))
    if ok:
        return method.signature.decode_result(outcome)
    raise _raised(method.where, sandbox, outcome)


def _task(sandbox: Sandbox, address: tuple[str, str, str], prefix: str) -> bytes:
    limits = {name: getattr(sandbox, name) for name in ("cpu_s", "memory", "file_size", "processes")}
    path = [str(Path(place).absolute()) for place in sys.path if place]
    told = {"path": path, "address": address, "prefix": prefix, "limits": limits}
    return json.dumps(told).encode() + b"\n"


def _environment(sandbox: Sandbox, home: str) -> dict[str, str]:
    names = ("PATH", "LANG", *sandbox.env)
    found = {name: os.environ[name] for name in names if name in os.environ}
    return {"HOME": home, "TMPDIR": home} | found


async def _outcome(where: str, sandbox: Sandbox, home: str, task: bytes) -> tuple[bool, bytes]:
    process = await asyncio.create_subprocess_exec(
        *jailed([sys.executable, "-I", _CHILD]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=home,
        env=_environment(sandbox, home),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(sandbox.wall_s):
            said, printed, _ = await _spoken(process, sandbox.output, task)
            code = await process.wait()
    except TimeoutError as error:
        raise _exceeded(SandboxTimeExceeded, where, f"{sandbox.wall_s:g} s", sandbox.wall_s) from error
    except _TooMuch as error:
        text = f"{sandbox.output:,} bytes of output or result"
        raise _exceeded(SandboxOutputExceeded, where, text, sandbox.output) from error
    finally:
        await asyncio.shield(_end(process))
    if said[:1] in {b"+", b"-"} and code == 0:
        return said[:1] == b"+", said[1:]
    if code == _SIGNALLED + signal.SIGXCPU:
        raise _exceeded(SandboxCpuExceeded, where, f"{sandbox.cpu_s:g} s of processor time", sandbox.cpu_s)
    raise _crashed(where, code, printed)


async def _spoken(process: asyncio.subprocess.Process, most: int, task: bytes) -> tuple[bytes, bytes, None]:
    assert process.stdout is not None
    assert process.stderr is not None
    return await asyncio.gather(
        _read(process.stdout, most + 1), _read(process.stderr, most), _feed(process, task)
    )


async def _read(stream: asyncio.StreamReader, most: int) -> bytes:
    data = bytearray()
    while chunk := await stream.read(1 << 16):
        data += chunk
        if len(data) > most:
            raise _TooMuch
    return bytes(data)


async def _feed(process: asyncio.subprocess.Process, task: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended before it had read all
        process.stdin.write(task)
        await process.stdin.drain()
    process.stdin.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Have the keeper end everything, and wait for it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    await process.wait()


def _exceeded(kind: type[SandboxExceeded], where: str, text: str, allowed: float) -> SandboxExceeded:
    return kind(f"{where} was stopped: its sandbox allows {text}", allowed=allowed)


def _crashed(where: str, code: int, printed: bytes) -> SandboxCrashed:
    number = code - _SIGNALLED
    named = number in {one.value for one in signal.Signals}
    how = f"by {signal.Signals(number).name}" if named else f"with exit code {code}"
    tail = printed[-_TAIL:].decode("utf-8", "replace").strip()
    said = f"; it printed: {tail}" if tail else ""
    return SandboxCrashed(f"the process of {where} ended {how} without an outcome{said}", exit_code=code)


def _raised(where: str, sandbox: Sandbox, outcome: bytes) -> BaseException:
    """What the handler raised, or which limit that means."""
    try:
        error = restore(msgspec.msgpack.decode(outcome, type=ErrorInfo))
    except msgspec.DecodeError:  # the process belongs to the handler, which may write there, too
        return _crashed(where, 0, outcome)
    if isinstance(error, MemoryError):
        text = f"{sandbox.memory:,} bytes of memory"
        return _exceeded(SandboxMemoryExceeded, where, text, sandbox.memory)
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        text = f"{sandbox.file_size:,} bytes in a file"
        return _exceeded(SandboxFileExceeded, where, text, sandbox.file_size)
    return error
