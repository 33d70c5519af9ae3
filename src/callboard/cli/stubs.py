"""``callboard stubs``: a typed module through which other repositories call these actors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit, write
from callboard.cli.output import out


def stubs(
    *actor: str,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    common: Common = DEFAULTS,
) -> int:
    """Write a typed Python module from what hosts have announced.

    A workflow that calls actors through it needs none of their dependencies.

        callboard stubs Analyst prices -o analyst_stubs.py

    Args:
        actor: Names; 'callboard actors' lists them. By default all agents and tools.
        output: The file to write. By default it is printed.
    """

    async def read() -> str:
        from callboard.actors.stubs import generate

        async with common.client() as client:
            return await generate(client.node, list(actor))

    text = asyncio.run(read())
    if output is None:
        common.output.answer({"actors": actor, "module": text}, lambda _: out(text.rstrip("\n")))
        return Exit.OK
    write(output, text)
    said = f"wrote {output}: workflows import what they call from it"
    common.output.answer({"actors": actor, "file": str(output)}, lambda screen: screen.print(said))
    return Exit.OK
