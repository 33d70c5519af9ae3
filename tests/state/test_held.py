"""Outcomes that are held: each counts in the place of the server's ack of its commit, and only by it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.state.conftest import Process
from tests.support.waiting import eventually

from callboard.infra import subjects
from callboard.infra.direct import Stored
from callboard.infra.errors import Fenced
from callboard.infra.messages.run import Result
from callboard.state.held import Counting, is_stored
from callboard.state.journal import Journal, encode, read_results
from callboard.state.shelf import Place

RUN = "run-1"
STORED = b'{"stream":"KV_cb_state","seq":7}'
REFUSED = b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 1"},"seq":0}'


def outcome(sequence: int, number: int, commit: str = "", kind: str = "result", body: bytes = b"") -> Stored:
    """An entry with the outcome of a call, or with another body."""
    body = body or encode(Result(f"{RUN}:{number}", "t.call", commit=commit))
    return Stored(subjects.run(RUN, kind), sequence, 0.0, {}, body)


def ack(sequence: int, name: str, body: bytes = STORED, kind: str = "result") -> Stored:
    """An entry with the server's ack of a commit."""
    return Stored(subjects.run(RUN, subjects.commit_kind(kind, name)), sequence, 0.0, {}, body)


def told(entries: list[Stored]) -> list[tuple[int, str]]:
    """Where which outcomes count."""
    return [
        (one.sequence, result.future.partition(":")[2])
        for one in entries
        for result in read_results(one.body)
    ]


class Growing:
    """A stream that grows while it is read.

    Args:
        entries: those that it will have; seen: how many there are at each read.
    """

    def __init__(self, entries: list[Stored], seen: list[int]) -> None:
        self._entries = entries
        self._seen = iter(sorted(seen))
        self._now = 0

    async def read(self, _: str, subject: str, after: int = 0) -> list[Stored]:
        """As `callboard.infra.direct.DirectReader.read`."""
        self._now = max(self._now, next(self._seen, len(self._entries)))
        there = self._entries[: self._now]
        wanted = subject.removeprefix(f"cb.run.{RUN}.")
        return [one for one in there if one.sequence > after and _fits(one.subject, wanted)]


def _fits(subject: str, wanted: str) -> bool:
    kind = subject.removeprefix(f"cb.run.{RUN}.")
    if wanted == ">":
        return True
    if wanted == "*":
        return "." not in kind
    return kind.startswith(wanted[:-1]) if wanted.endswith(".>") else kind == wanted


# -- which count, and where -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "count"),
    [
        ([outcome(1, 1, "d.h.0"), ack(2, "d.h.0")], [(2, "1")]),
        ([outcome(1, 1, "d.h.0"), outcome(2, 2), ack(3, "d.h.0")], [(2, "2"), (3, "1")]),
        ([outcome(1, 1, "d.h.0"), ack(2, "d.h.0", REFUSED)], []),
        ([outcome(1, 1, "d.h.0")], []),
        ([ack(1, "d.h.0"), outcome(2, 1, "d.h.0")], []),
        ([outcome(1, 1, "d.h.0"), ack(2, "d.h.1")], []),
        ([outcome(1, 1, "d.h.0"), ack(2, "d.h.0"), outcome(3, 2, "d.h.0")], [(2, "1")]),
        (
            [outcome(1, 1, "d.h.0"), ack(2, "d.h.0", REFUSED), outcome(3, 1, "d.h.0"), ack(4, "d.h.0")],
            [(4, "1")],
        ),
        ([outcome(1, 1, "d.h.0"), outcome(2, 2, "d.h.0"), ack(3, "d.h.0")], [(3, "2")]),
        ([outcome(1, 1, "d.h.0"), ack(2, "d.h.0"), ack(3, "d.h.0")], [(2, "1")]),
        ([outcome(1, 1, "d.h.0", "result.1"), ack(2, "d.h.0")], []),
        ([outcome(1, 1, "d.h.0", "result.1"), ack(2, "d.h.0", kind="result.1")], [(2, "1")]),
        ([outcome(1, 1, "d.h.0"), ack(2, "d.h.0", b"")], []),
        ([outcome(1, 1, "d.h.0"), ack(2, "d.h.0", b"\xff{")], []),
        ([outcome(1, 1, "d.h.0"), ack(2, "d.h.0", b'{"stream":"OTHER","seq":3}')], []),
        ([outcome(1, 1, "d h"), ack(2, "d.h.0")], []),
        ([outcome(1, 1, body=b"\xa6commit\xc1"), outcome(2, 2)], [(2, "2")]),
    ],
    ids=[
        "acked",
        "others_between",
        "refused",
        "no_ack",
        "ack_before",
        "other_ack",
        "name_used_again",
        "committed_later",
        "the_last_one_of_a_name",
        "acked_twice",
        "other_maker",
        "of_a_handler",
        "empty_ack",
        "undecodable_ack",
        "ack_of_another_stream",
        "no_name",
        "undecodable_outcome",
    ],
)
def test_an_outcome_counts_by_its_ack(entries: list[Stored], count: list[tuple[int, str]]) -> None:
    """In its place; without one that says that the commit is stored it does not."""
    assert told(Counting(RUN).take(entries)) == count


def test_outcomes_that_are_stored_together_stay_together() -> None:
    """What is held is stored alone; and a value may have a key of that name."""
    both = [Result(f"{RUN}:{n}", "t.call", msgspec.Raw(encode({"commit": n}))) for n in range(3)]
    entries = [outcome(1, 1, body=encode(both)), outcome(2, 7, body=encode(both[0]))]
    assert Counting(RUN).take(entries) == entries
    forged = [Result(f"{RUN}:1", "t.call", commit="d.h.0"), Result(f"{RUN}:2", "t.call")]
    entries = [outcome(1, 1, body=encode(forged)), ack(2, "d.h.0")]
    assert told(Counting(RUN).take(entries)) == [(1, "2")]


def test_what_is_taken_bit_by_bit_counts_likewise() -> None:
    """Who follows a journal need not read it anew."""
    entries = [outcome(1, 1, "d.h.0"), outcome(2, 2), ack(3, "d.h.0"), ack(4, "d.h.0")]
    counting = Counting(RUN)
    assert [told(counting.take([one])) for one in entries] == [[], [(2, "2")], [(3, "1")], []]
    assert counting.alone


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"seq":"x"}',
        b'{"stream":"OTHER","seq":3}',
        b'{"error":{}}',
        b"\x00",
        b'{"a":' * 2000,
    ],
)
def test_what_is_no_ack_of_a_commit_says_nothing(body: bytes) -> None:
    """Anybody can publish to a journal."""
    assert is_stored(body) is None
    entries = [outcome(1, 1, "d.h.0"), ack(2, "d.h.0", body), ack(3, "d.h.0")]
    assert told(Counting(RUN).take(entries)) == [(3, "1")]


steps = st.lists(
    st.tuples(st.sampled_from("PCER"), st.integers(0, 2), st.sampled_from(["result", "result.1"])),
    max_size=14,
)


@given(steps, st.lists(st.integers(0, 14), max_size=12), st.sampled_from(["*", ">", "result", "result.1"]))
def test_who_follows_a_journal_hears_what_who_reads_it_later_does(
    steps: list[tuple[str, int, str]], seen: list[int], kind: str
) -> None:
    """The same outcomes in the same order, whatever is stored while it is read."""
    entries = []
    for number, (what, name, of) in enumerate(steps, 1):
        if what == "R":
            entries.append(outcome(number, number, kind=of))
        elif what == "P":
            entries.append(outcome(number, number, f"d.h.{name}", kind=of))
        else:
            entries.append(ack(number, f"d.h.{name}", STORED if what == "C" else REFUSED, of))

    async def both() -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
        growing: Any = Growing(entries, seen)
        journal = Journal(None, growing)  # type: ignore[arg-type]
        heard, after = [], 0
        for _ in range(20):
            found = await journal.read(RUN, kind, after)
            heard += told(found)
            after = max([after, *(one.sequence for one in found)])
        return heard, told(await journal.read(RUN, kind))

    heard, whole = asyncio.run(both())
    assert heard == whole


# -- on a server ----------------------------------------------------------------------------------------


class Told:
    """An outcome that is told with a commit, as a host does it."""

    def __init__(self, process: Process, number: int, name: str) -> None:
        self.subject = subjects.run(RUN, subjects.commit_kind("result", name))
        self._process = process
        self._result = Result(f"{RUN}:{number}", "t.call", commit=name)

    def tell(self) -> None:
        """Store it."""
        self._process.journal.put_held(RUN, "result", self._result, lambda _: None)


async def listening(process: Process) -> None:
    """Hand the acks that stand in the journal to the store."""

    def on_ack(subject: bytes, _: bytes, data: bytes, head: bytes | None) -> None:
        process.store.answered(subject.decode().replace("cb.journal.", "cb.run.", 1), data, head)

    process.connection.subscribe(subjects.journal("*", subjects.commit_kind("result.*", ">")), on_ack)
    await process.connection.flush()


async def test_the_server_itself_says_in_the_journal_that_a_commit_is_stored(process: Process) -> None:
    """The outcome counts, and whoever committed has its sequence."""
    await listening(process)
    place = Place("Scribe", "s")
    sequence = await process.shelf.commit(place, b"one", 0, told=Told(process, 1, "d.h.0"))
    last = await process.shelf.last(place)
    assert last is not None
    assert (last.sequence, last.body) == (sequence, b"one")
    assert [number for _, number in told(await process.journal.read(RUN, "result"))] == ["1"]


async def test_an_outcome_whose_commit_is_fenced_does_not_count(process: Process) -> None:
    """The server says that, too."""
    await listening(process)
    place = Place("Scribe", "s")
    await process.shelf.commit(place, b"another's", 0)
    with pytest.raises(Fenced):
        await process.shelf.commit(place, b"one", 0, told=Told(process, 1, "d.h.0"))
    assert told(await process.journal.read(RUN, "*")) == []
    assert told(await process.journal.read(RUN, "*", 1)) == []


async def test_an_outcome_counts_though_nobody_hears_of_its_commit(process: Process) -> None:
    """Whoever committed may be gone."""
    committing = asyncio.create_task(
        process.shelf.commit(Place("Scribe", "s"), b"one", 0, told=Told(process, 1, "d.h.0"))
    )

    async def counts() -> list[tuple[int, str]]:
        return told(await process.journal.read(RUN, "result"))

    assert [number for _, number in await eventually(counts)] == ["1"]
    assert not committing.done()
    committing.cancel()


async def test_a_commit_that_is_sent_again_is_acked_to_whoever_sent_it(process: Process) -> None:
    """And is one commit."""
    place, told_ = Place("Scribe", "s"), Told(process, 1, "d.h.0")
    committing = asyncio.create_task(process.shelf.commit(place, b"one", 0, told=told_))

    async def counts() -> list[tuple[int, str]]:
        return told(await process.journal.read(RUN, "result"))

    await eventually(counts)
    process.store._resend_all()
    last = await process.shelf.last(place)
    assert last is not None
    assert await committing == last.sequence
    process.store.answered(told_.subject, STORED, None)  # late: passed over


def test_an_outcome_that_is_not_held_is_stored_as_ever() -> None:
    """Other versions read it."""
    assert b"commit" not in encode(Result(f"{RUN}:1", "t.call"))
    assert msgspec.msgpack.decode(encode(Result("r:1", "t.call", commit="d.h.0")))["commit"] == "d.h.0"
