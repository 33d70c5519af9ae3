"""docs/python.md has every directive with its default, and names only what there is."""

from __future__ import annotations

import asyncio
import re
import sys

import msgspec
from tests.docs.pages import DOCS, blocks, table, tables

from callboard import workflow
from callboard.actors.client import Client
from callboard.actors.declared import declaration
from callboard.actors.directives import Directives
from callboard.actors.host import Host

PAGE = DOCS / "python.md"


def test_directives() -> None:
    """In the order of the code."""
    rows = table(PAGE, "Directives").records()
    expected = {name: repr(value) for name, value in msgspec.structs.asdict(Directives()).items()}
    assert [(row["directive"], row["default"]) for row in rows] == list(expected.items())


def test_methods() -> None:
    """Every name in the table is the client's."""
    rows = tables(PAGE, "Submitting runs")[0].records()
    told = " ".join(row["method of `Client`"] for row in rows)
    names = set(re.findall(r"[a-z_]+", re.sub(r"\([^)]*\)", "", told)))
    assert {"submit", "result", "cancel", "events", "running", "state"} <= names
    assert [name for name in names if not hasattr(Client, name)] == []


@workflow
async def brief(topics: list[str]) -> str:
    """What the page's example submits."""
    return " and ".join(topics)


async def test_the_example_prints_the_result(nats_url: str) -> None:
    """In a process of its own, as a reader would run it."""
    (block,) = blocks(PAGE)
    declared = declaration(brief)
    assert declared is not None
    host = Host([declared], nats_url)
    await host.start()
    script = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        block.text.replace("nats://127.0.0.1:4222", nats_url),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        printed, _ = await script.communicate()
    await host.stop()
    assert printed.decode() == "rates\n"
