"""A run as its driver has it: its request, how it stands here, and what its journal says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from callboard.actors import runids
from callboard.actors.maker import CallMaker
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import (
    CallboardError,
    Diverged,
    HeaderInvalid,
)
from callboard.infra.messages.run import Aside, Done, Owner, Signal
from callboard.infra.pull import Delivered
from callboard.state.accounts import key_of
from callboard.state.journal import (
    Lease,
    decode_aside,
    decode_owner,
    decode_signal,
    read_done,
    read_entry,
    read_results,
)

if TYPE_CHECKING:
    from callboard.infra.direct import Stored

T = TypeVar("T")

NO_REASON = "no reason was given"


class Request:
    """A request as its driver sees it.

    Attributes:
        run, session: ids; deadline: unix seconds, 0 for none; priority: of all its calls.
        budget: what its calls are charged to.
        as_json: it was JSON, so its outcome is JSON too.
        resumed: the run was put aside, and is to go on; started: unix seconds of the first request.
        named: it says which run it is, so that somebody may wait for that.
        kept: digest of the blob that holds its body, where that is too long for the journal.
        seed: what random numbers and UUIDs are made from: the run itself, or the one that it is a fork of.
        problem: why it cannot be run, if so: a header that cannot be used, or too many others.

    Raises:
        NameInvalid: the run's id is none.
    """

    __slots__ = (
        "as_json",
        "blobs",
        "body",
        "budget",
        "deadline",
        "delivered",
        "headers",
        "kept",
        "named",
        "priority",
        "problem",
        "resumed",
        "run",
        "seed",
        "session",
        "started",
        "trace",
    )

    def __init__(self, delivered: Delivered, headers: dict[str, str]) -> None:
        self.delivered = delivered
        self.headers = headers
        self.body = delivered.body
        self.kept = ""
        self.problem: CallboardError | None = None
        self.resumed = H.RESUME in headers
        self.started = self._read(H.RESUME, H.moment, 0.0) or delivered.stored_at
        self.run = self._run_id(delivered, headers)
        self.session = headers.get(H.SESSION) or self.run
        self.deadline = self._read(H.DEADLINE, H.moment, 0.0)
        self.priority = self._read(H.PRIORITY, H.whole, 0)
        self.blobs = headers[H.BLOBS].split(",") if headers.get(H.BLOBS) else []
        self.trace = headers.get(H.TRACEPARENT, "")
        self.budget = self._read(H.BUDGET, H.charged, "")
        self.seed = self._read(H.SEED, _seed, "") or self.run
        self.as_json = runids.is_json(headers.get(H.CONTENT_TYPE, ""), self.body)

    @property
    def is_fork(self) -> bool:
        """Whether its journal began before any driver had it, see :mod:`callboard.actors.fork`."""
        return self.seed != self.run

    @property
    def key(self) -> str:
        """The key that it is charged to, see :meth:`callboard.actors.client.Client.submit`; empty: none."""
        return key_of(self.budget) if self.budget else ""

    def _read(self, name: str, read: Callable[[dict[str, str], str], T], unset: T) -> T:
        try:
            return read(self.headers, name)
        except ValueError as error:
            self.problem = HeaderInvalid(
                f"header {error}; the request was not run", header=name, value=self.headers[name][:80]
            )
            return unset

    def _run_id(self, delivered: Delivered, headers: dict[str, str]) -> str:
        given = headers.get(H.RUN) or headers.get(H.MESSAGE_ID) or ""
        self.named = bool(given)
        if given:
            return subjects.token(f"run id (header {H.RUN} or {H.MESSAGE_ID})", given)
        return subjects.derived_id(int(delivered.stored_at * 1e9), delivered.subject, str(delivered.sequence))


def _seed(headers: dict[str, str], name: str) -> str:
    """The run in a header, or nothing.

    Raises:
        ValueError: it is no run's id.
    """
    text = headers.get(name, "")
    if text and not subjects.is_token(text):
        raise ValueError(f"{name} is {text[:40]!r}: expected the id of a run")
    return text


class Run:
    """One run while this driver drives it.

    Attributes:
        lease: this driver's hold on it, once taken.
        task: while its function runs.
        cancelled: why, if it was; diverged: how, if its code has changed; fenced: another drives it.
        aside: it is put aside; was_aside: it was before.
    """

    __slots__ = ("aside", "cancelled", "diverged", "fenced", "lease", "maker", "request", "task", "was_aside")

    def __init__(self, request: Request, maker: CallMaker) -> None:
        self.request = request
        self.maker = maker
        self.lease: Lease | None = None
        self.cancelled = ""
        self.diverged: Diverged | None = None
        self.fenced = False
        self.aside = self.was_aside = False
        self.task: asyncio.Task[Any] | None = None


class Known:
    """What a journal says of a run that has been driven since ``since``, read up to ``sequence``."""

    def __init__(self, entries: list[Stored]) -> None:
        self.done: Done | None = None
        self.owner: Owner | None = None
        self.first: Owner | None = None
        self.owner_sequence = 0
        self.since = 0.0
        self.sequence = 0
        self.cancelled = ""
        self.results: list[Stored] = []
        self.signals: list[tuple[int, Signal]] = []
        self.aside_sequence = 0
        self._aside: Aside | None = None
        self.waits: list[str] = []
        self.owners = 0  # since it was last put aside
        for entry in entries:
            self.sequence = entry.sequence
            kind = entry.subject.rpartition(".")[2]
            if kind == "result":
                self.results.append(entry)
            elif kind == "owner":
                self.owner = read_entry(decode_owner, entry.body) or self.owner
                self.first = self.first or self.owner
                self.since = self.since or entry.at
                self.owner_sequence = entry.sequence
                self.owners += 1
            elif kind == "aside":
                aside = read_entry(decode_aside, entry.body)
                if aside is not None:
                    self._aside, self.aside_sequence = aside, entry.sequence
                    self.waits, self.owners = aside.waits, 0
            elif kind == "done":
                self.done = read_done(entry) or self.done
            elif kind == "signal":
                signal = read_entry(decode_signal, entry.body)
                if signal is not None and signal.name == "cancel":
                    self.cancelled = signal.reason or NO_REASON
                elif signal is not None:
                    self.signals.append((entry.sequence, signal))

    @property
    def is_cut(self) -> bool:
        """Whether what stood first was too old, and has been removed."""
        if self.owner is None:
            return self.aside_sequence > 0 or any(read_results(entry.body) for entry in self.results)
        return self.first is not None and self.first.epoch > 1

    @property
    def is_aside(self) -> bool:
        """Whether the run is put aside now."""
        return self.aside_sequence > self.owner_sequence

    @property
    def aside(self) -> Aside | None:
        """How the run is put aside, if it is now."""
        return self._aside if self.is_aside else None
