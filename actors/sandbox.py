"""What a handler in a sandbox may use."""

from __future__ import annotations

import msgspec

from callboard.infra.errors import DeclarationInvalid

MB = 1 << 20


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a handler that is not trusted, or may crash: ``@tool(sandbox=Sandbox(cpu_s=2))``.

    It runs in a process of its own for each call, in an empty working directory that is removed, without
    this process's environment. ``docs/tools.md`` says what that does not protect from.

    Attributes:
        cpu_s: seconds of processor time, rounded up to whole ones.
        wall_s: seconds on the clock, the start of the process (about half a second) included.
        memory: bytes of address space, that of the interpreter (some 100 MB) included.
        output: bytes that it may print, and bytes of its result.
        file_size: bytes of each file that it writes.
        processes: of its user, threads counted, when it starts another; None: no limit. The kernel does
            not hold root to it.
        env: names of environment variables that it gets beside ``PATH``, ``LANG``, ``HOME`` and ``TMPDIR``.
    """

    cpu_s: float = 10.0
    wall_s: float = 30.0
    memory: int = 1024 * MB
    output: int = MB
    file_size: int = 64 * MB
    processes: int | None = None
    env: tuple[str, ...] = ()


def check(sandbox: Sandbox, where: str) -> None:
    """Hold limits against sense.

    Raises:
        DeclarationInvalid: one is not above 0.
    """
    for name in ("cpu_s", "wall_s", "memory", "output", "file_size"):
        if getattr(sandbox, name) <= 0:
            raise DeclarationInvalid(f"{where}: sandbox: {name} must be above 0")
    if sandbox.processes is not None and sandbox.processes < 0:
        raise DeclarationInvalid(f"{where}: sandbox: processes must be 0 or more")
