"""Setting, listing and ending limits of requests, as clients do."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import msgspec

from callboard.actors.admission import read_admission
from callboard.actors.entries import STREAM
from callboard.actors.routing import REMEMBERED, next_epoch
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import AdmissionInvalid
from callboard.infra.messages.policy import Admission

if TYPE_CHECKING:
    from callboard.actors.node import Node
    from callboard.infra.direct import DirectReader


async def put(node: Node, workflow: str, rate: float | None, policy: str, reason: str) -> Admission | None:
    """Store a limit, or end it; drivers follow it from then on.

    Args:
        rate: requests a second; None: no limit.

    Raises:
        AdmissionInvalid: the rate is none.
    """
    subject = subjects.admission(subjects.token("workflow", workflow))
    if rate is None:
        head = H.encode([("KV-Operation", "DEL"), (H.TTL, str(REMEMBERED))])
        await node.store.stored(subject, b"", head)
        return None
    if not 0 <= rate < math.inf:
        text = f"{workflow} cannot accept {rate} requests a second: give 0 or more, or no limit"
        raise AdmissionInvalid(text, workflow=workflow)
    last = await node.reader.last(STREAM, subject)
    known = read_admission(subject, last.body) if last is not None and last.body else None
    epoch = max(await next_epoch(node), known.epoch + 1 if known is not None else 0)
    limit = Admission(workflow, float(rate), epoch, policy, reason, time.time())
    await node.store.stored(subject, msgspec.msgpack.encode(limit))
    return limit


async def every(node: Node) -> list[Admission]:
    """The limits that hold now, by workflow."""
    return await read_limits(node.reader)


async def read_limits(reader: DirectReader) -> list[Admission]:
    """The same, by whatever reads streams."""
    stored = await reader.read(STREAM, subjects.admission(">"))
    found = [read_admission(one.subject, one.body) for one in stored if one.body]
    return sorted((one for one in found if one is not None), key=lambda one: one.workflow)
