"""``callboard actors``: what can be called, and who runs it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit
from callboard.cli.output import table
from callboard.infra.messages.registry import ActorInfo, InstanceInfo, Pulse

if TYPE_CHECKING:
    from rich.console import Console


class Row(msgspec.Struct):
    """An actor and its instances.

    Attributes:
        hosts: of each living host, its instance; missing: how many are wanting to ``min_instances``.
    """

    name: str
    kind: str
    methods: list[str]
    version: str
    hosts: dict[str, InstanceInfo]
    missing: int = 0
    doc: str = ""


def actors(*, common: Common = DEFAULTS) -> int:
    """List the actors and workflows, and the hosts that run them.

    'busy' is how many handlers run of how many may; 'waiting' how many calls nobody has pulled yet.
    """

    async def look() -> tuple[list[ActorInfo], list[Pulse]]:
        from callboard.actors import registry
        from callboard.controller.look import living

        async with common.client() as client:
            return await asyncio.gather(registry.actors(client.node), living(client.node))

    infos, hosts = asyncio.run(look())
    rows = [_row(info, hosts) for info in infos]
    common.output.answer(rows, lambda screen: _print(rows, screen))
    return Exit.OK


def _row(info: ActorInfo, hosts: list[Pulse]) -> Row:
    running = {host.host: host.instances[info.name] for host in hosts if info.name in host.instances}
    return Row(
        name=info.name,
        kind=info.kind,
        methods=[method.name for method in info.methods],
        version=info.version,
        hosts=running,
        missing=max(0, info.directives.get("min_instances", 0) - len(running)),
        doc=info.doc,
    )


def _print(rows: list[Row], screen: Console) -> None:
    if not rows:
        screen.print("no actors; start some with: callboard host APP")
        return
    titles = ("actor", "kind", "methods", "version", "hosts", "busy", "waiting", "")
    listed = table(titles, numbers=("hosts", "busy", "waiting"), texts=("methods", ""))
    for row in rows:
        listed.add_row(*_cells(row))
    screen.print(listed)


def _cells(row: Row) -> list[str]:
    instances = list(row.hosts.values())
    busy = f"{sum(i.busy for i in instances)}/{sum(i.slots for i in instances)}"
    versions = {i.version for i in instances if i.version} or {row.version}
    methods = ", ".join(row.methods) if row.kind == "agent" else ""
    return [
        row.name,
        row.kind,
        methods,
        ", ".join(sorted(versions)),
        str(len(instances)) if instances else "[yellow]none[/]",
        busy if instances else "",
        str(sum(i.mailbox for i in instances) + max((i.waiting for i in instances), default=0)),
        _remark(row, versions),
    ]


def _remark(row: Row, versions: set[str]) -> str:
    remarks = []
    if row.missing:
        remarks.append(f"[red]{row.missing} below min_instances[/]")
    if len(versions) > 1:
        remarks.append("[yellow]versions differ[/]")
    return ", ".join(remarks)
