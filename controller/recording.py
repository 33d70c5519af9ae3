"""Telemetry that was kept: the calls and runs that it tells of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from callboard.infra import subjects
from callboard.infra.errors import RecordingInvalid
from callboard.infra.messages.registry import ActorInfo
from callboard.infra.messages.telemetry import Ended, Made, Queues, Report, RunsEnded

if TYPE_CHECKING:
    from callboard.actors.node import Node

_MOVED = 0.01
"""Seconds between being sent and stored after which a call must have been stored before, in another lane."""
_decode = msgspec.msgpack.Decoder(Report).decode


class RecordedCall(msgspec.Struct, frozen=True):
    """An attempt that has ended.

    Attributes:
        future: its id; with the number of the attempt behind it from the second on.
        stored, started, ended: unix seconds.
        host: who ran it; call: ``actor.method``; stage: its depth in the run.
        band, priority: those of the run and its code, where no decision gave others; else the middle ones.
    """

    future: str
    actor: str
    session: str
    band: int
    priority: int
    stored: float
    started: float
    ended: float
    host: str
    call: str = ""
    stage: int = 1

    @property
    def maker(self) -> str:
        """The run, or the call, that made it."""
        run, _, place = self.future.partition("#")[0].partition(":")
        made_by, nested, _ = place.rpartition(".")
        return f"{run}:{made_by}" if nested else run


class RecordedRun(msgspec.Struct, frozen=True):
    """A run that has ended: when its driver told so, in unix seconds, and what it took; its key."""

    run: str
    workflow: str
    told: float
    took: float
    key: str = ""


class Recorded(msgspec.Struct):
    """What a recording holds.

    Attributes:
        calls, runs: that have ended; slots: by actor and host, the most that were told.
        declared: what is known of the actors whose slots were told: ``min_instances`` and the like.
        moved: sessions, as often as each has moved to another host.
        startups: seconds that processes of hosts took to start, by host; heard: when the first and the last
            report of each came.
        began, ended: of the recording, unix seconds; missing: reports that were lost.
    """

    calls: list[RecordedCall] = []
    runs: list[RecordedRun] = []
    slots: dict[tuple[str, str], int] = {}
    declared: dict[str, ActorInfo] = {}
    moved: int = 0
    startups: dict[str, float] = {}
    heard: dict[str, tuple[float, float]] = {}
    began: float = 0.0
    ended: float = 0.0
    missing: int = 0


def read(reports: Iterable[Report], source: str) -> Recorded:
    """What reports tell of calls and runs that have ended.

    Args:
        source: where they are from, for errors.

    Raises:
        RecordingInvalid: no run has ended in it, or a report does not fit together.
    """
    found, last, sent = Recorded(), dict[str, int](), dict[str, float]()
    for report in reports:
        found.missing += max(0, report.sequence - last.get(report.source, report.sequence - 1) - 1)
        last[report.source] = report.sequence
        found.began = min(found.began or report.at, report.at - report.every)
        found.ended = max(found.ended, report.at)
        found.heard[report.source] = found.heard.get(report.source, (report.at, 0.0))[0], report.at
        try:
            _take(found, report, sent)
        except (ValueError, IndexError) as error:
            raise RecordingInvalid(
                f"{source}: report {report.sequence} of {report.source} cannot be read: {error}",
                source=source,
            ) from error
    found.calls = [_first_stored(call, sent.get(call.future, call.stored)) for call in found.calls]
    if not found.runs:
        raise RecordingInvalid(
            f"{source} tells of no run that has ended: make some load ('callboard load'), or wait until the "
            "hosts have reported (telemetry_every)",
            source=source,
        )
    return found


def _first_stored(call: RecordedCall, sent: float) -> RecordedCall:
    """A call that was moved has waited from when it was stored for the first time, as its maker has told."""
    return msgspec.structs.replace(call, stored=sent) if call.stored - sent > _MOVED else call


def _take(found: Recorded, report: Report, sent: dict[str, float]) -> None:
    if report.made is not None:
        for future, at in _sent(report, report.made):
            sent.setdefault(future, at)
    if report.ended is not None:
        found.calls.extend(_calls(report, report.ended))
    if report.runs_ended is not None:
        found.runs.extend(_runs(report, report.runs_ended))
    if report.sessions_moved is not None:
        found.moved += len(report.sessions_moved.why)
    if report.queues is not None:
        _slots(found, report, report.queues)
    if report.machine is not None and report.machine.startup > 0:
        found.startups[report.source] = report.machine.startup


def _sent(report: Report, made: Made) -> Iterator[tuple[str, float]]:
    ago = _numbers(made.sent, "f4", len(made.future)).tolist()
    return ((future, report.at - since) for future, since in zip(made.future, ago, strict=True) if since >= 0)


def _calls(report: Report, ended: Ended) -> Iterator[RecordedCall]:
    size = len(ended.future)
    kinds = list(_kinds(report, ended))
    ends = report.at - _numbers(ended.ago, "f4", size)
    starts = ends - _numbers(ended.took, "f4", size)
    stored = starts - _numbers(ended.waited, "f4", size)
    places = _numbers(ended.kind, "u4", size)
    rows = zip(ended.future, places.tolist(), stored.tolist(), starts.tolist(), ends.tolist(), strict=True)
    for future, place, came, began, over in rows:
        actor, session, band, priority, attempt, call, stage = kinds[place]
        name = f"{future}#{attempt}" if attempt > 1 else future
        owner = session or future.partition(":")[0]
        yield RecordedCall(name, actor, owner, band, priority, came, began, over, report.source, call, stage)


def _kinds(report: Report, ended: Ended) -> Iterator[tuple[str, str, int, int, int, str, int]]:
    """What calls have in common: actor, session, band, priority, attempt, call, stage."""
    size = len(ended.how)
    bands = _numbers(ended.band, "u1", size).tolist()
    priorities = _numbers(ended.priority, "i2", size).tolist()
    attempts = _numbers(ended.attempt, "u2", size).tolist()
    stages = _numbers(ended.stage, "u2", size).tolist()
    ranked = _numbers(ended.ranked, "u1", size).tolist()
    calls, sessions = _names(report, ended.call, size), _names(report, ended.session, size)
    rows = zip(calls, sessions, bands, priorities, attempts, stages, ranked, strict=True)
    for call, session, band, priority, attempt, stage, decided in rows:
        actor = call.rpartition(".")[0] or call
        if decided:  # which other one the call would have had is not told
            yield actor, session, subjects.MIDDLE_BAND, 0, attempt, call, stage
        else:
            yield actor, session, min(band, len(subjects.BANDS) - 1), priority, attempt, call, stage


def _runs(report: Report, ended: RunsEnded) -> Iterator[RecordedRun]:
    size = len(ended.run)
    took = _numbers(ended.took, "f4", size).tolist()
    workflows, status = _names(report, ended.workflow, size), _names(report, ended.status, size)
    keys = _names(report, ended.key, size) if ended.key else [""] * size
    for run, seconds, workflow, how, key in zip(ended.run, took, workflows, status, keys, strict=True):
        if how != "left":
            yield RecordedRun(run, workflow, report.at, seconds, key)


def _slots(found: Recorded, report: Report, queues: Queues) -> None:
    size = len(queues.actor) // 4
    slots = _numbers(queues.slots, "u4", size).tolist()
    drives = _numbers(queues.workflow, "u1", size).tolist()
    actors, declared = _names(report, queues.actor, size), _declared(report, queues, size)
    for actor, count, workflow, directives in zip(actors, slots, drives, declared, strict=True):
        if not workflow and count:
            key = (actor, report.source)
            found.slots[key] = max(count, found.slots.get(key, 0))
            found.declared[actor] = ActorInfo(actor, "tool", "", directives=directives)


def _declared(report: Report, queues: Queues, size: int) -> Iterator[dict[str, Any]]:
    """What is known of the directives of each instance."""
    least, most = (_numbers(column, "u4", size).tolist() for column in (queues.least, queues.most))
    needs = _names(report, queues.needs, size) if queues.needs else [""] * size
    for fewest, highest, words in zip(least, most, needs, strict=True):
        amounts = (word.partition("=") for word in words.split(",") if word)
        resources = {name: float(amount) for name, _, amount in amounts}
        yield {"min_instances": fewest, "max_instances": highest or None, "resources": resources}


def _numbers(column: bytes, kind: str, size: int) -> Any:
    found = np.frombuffer(column, f"<{kind}") if column else np.zeros(size, f"<{kind}")
    if len(found) != size:
        raise ValueError(f"a column has {len(found)} numbers for {size} rows")
    return found.astype(np.float64) if kind == "f4" else found


def _names(report: Report, column: bytes, size: int) -> list[str]:
    return [report.names[place] for place in _numbers(column, "u4", size).tolist()]


# -- where reports are kept -------------------------------------------------------------------------


async def from_stream(node: Node, since: float = 0.0, stream: str = subjects.TELEMETRY) -> list[Report]:
    """The reports that a stream holds; what cannot be read is left out.

    Args:
        since: unix seconds; earlier ones are left out.
        stream: TELEMETRY, or a mirror of it that keeps more.

    Raises:
        RecordingInvalid: there is no such stream, or it does not allow direct reads.
    """
    if stream != subjects.TELEMETRY:
        config = (await node.topology.api(f"STREAM.INFO.{subjects.token('stream', stream)}")).get("config")
        if config is None:
            text = f"there is neither a file nor a stream {stream}; 'callboard telemetry record' makes a file"
            raise RecordingInvalid(text, source=stream)
        if not config.get("allow_direct"):
            text = f"stream {stream} cannot be read: set its allow_direct ('nats stream edit --allow-direct')"
            raise RecordingInvalid(text, source=stream)
    stored = await node.reader.read(stream, subjects.telemetry(">"))
    found = []
    for one in stored:
        if one.at >= since:
            try:
                found.append(_decode(one.body))
            except (msgspec.DecodeError, RecursionError):  # anybody may publish there
                continue
    return found


def write_file(file: Path, reports: Iterable[Report]) -> None:
    """Keep reports: a line of JSON for each.

    Raises:
        RecordingInvalid: the file cannot be written.
    """
    try:
        file.write_bytes(msgspec.json.Encoder().encode_lines(list(reports)))
    except OSError as error:
        raise RecordingInvalid(f"{file} cannot be written: {error}", source=str(file)) from error


def read_file(file: Path) -> list[Report]:
    """The reports that were kept in a file.

    Raises:
        RecordingInvalid: it is no such file.
    """
    try:
        return msgspec.json.Decoder(Report).decode_lines(file.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        text = f"{file} is no recording: {error}; make one with 'callboard telemetry record {file}'"
        raise RecordingInvalid(text, source=str(file)) from error
