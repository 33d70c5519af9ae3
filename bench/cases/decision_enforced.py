"""From a decision to all hosts that follow it."""

import asyncio
import statistics
import time

from bench import jobs
from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import Place, place, start_server, until
from bench.sides import worker_env
from callboard.actors.node import Node
from callboard.controller.decisions import Decisions
from callboard.infra import subjects
from callboard.infra.messages.policy import Decision
from callboard.infra.settings import Settings

HOSTS = 64
PROCESSES = 4
DECISIONS = 100
PATIENCE_S = 10.0


@case("decision_enforced", Metric("p99", "ms", Bound(at_most=100.0)), floor=False, rounds=3)
async def decision_enforced(_: Role) -> Sample:
    """100 priorities in turn: from writing one to the bucket until each of 64 hosts acts by it."""
    async with place() as here:
        server = await start_server(here)
        await asyncio.gather(*(_hosts(here, server.url) for _ in range(PROCESSES)))
        node = Node(Settings.load(nats_url=server.url), "c-bench")
        await node.open()
        decisions = Decisions(node, node.name, lambda _: None, asyncio.create_task)
        try:
            await decisions.start()
            await decisions.lead(1)
            ledger = jobs.LedgerReader(here.folder / "ledger")
            took = [one for number in range(DECISIONS) for one in await _one(decisions, ledger, f"s{number}")]
        finally:
            decisions.stop()
            await node.close()
    cuts = statistics.quantiles(took, n=100)
    return Sample(
        values={"p99": cuts[98] * 1000},
        details={"p50_ms": cuts[49] * 1000, "max_ms": max(took) * 1000},
    )


async def _hosts(here: Place, url: str) -> None:
    some = await here.spawn_python(
        "bench.many_hosts", url, str(HOSTS // PROCESSES), extra_env=worker_env(here)
    )
    await some.until_logged("ready", timeout_s=60)


async def _one(decisions: Decisions, ledger: jobs.LedgerReader, session: str) -> list[float]:
    """Seconds of each host."""
    at: list[float] = []

    def all_have() -> bool:
        at.extend(entry.at_s for entry in ledger.fresh())
        return len(at) >= HOSTS

    key = subjects.priority(subjects.session_token(session))
    begun = time.monotonic()
    await decisions.write([Decision("priority", key, value=3, policy="bench", reason="to see who follows")])
    await until(all_have, PATIENCE_S)
    return [one - begun for one in at]
