"""Scaling under a load that was recorded: a hot branch that shifts, played thirty times as slowly.

``recordings/shifting.jsonl.gz`` is what a host has told under ``callboard load answer --rate 10 --for 60s --vary
kind=chat,code --skew hot:0.9 --shift 15s --seed 7``, a workflow that makes one call, to ``chat`` or to ``code``.
"""

from __future__ import annotations

import gzip
import heapq
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from tests.controller.test_instances import Play

from callboard.controller import loading, recording
from callboard.controller.loads import loads
from callboard.controller.policy import Act, Policy
from callboard.controller.recording import RecordedCall
from callboard.controller.view import View
from callboard.infra.messages.telemetry import Report

FILE = Path(__file__).parent / "recordings" / "shifting.jsonl.gz"
STRETCHED = 30.0
ACTORS = ("chat", "code")


class Queue:
    """The calls of one actor, as they were recorded, at as many slots as there are now."""

    def __init__(self, calls: list[RecordedCall], began: float) -> None:
        self._coming = sorted(
            ((one.stored - began) * STRETCHED, (one.ended - one.started) * STRETCHED) for one in calls
        )[::-1]
        self._waiting: list[float] = []
        self._running: list[float] = []

    def until(self, now: float, slots: int) -> int:
        """Play on; gives how many are in the system."""
        while self._coming and self._coming[-1][0] <= now:
            at, took = self._coming.pop()
            self._start(at, slots)
            self._waiting.append(took)
            self._start(at, slots)
        self._start(now, slots)
        return len(self._waiting) + len(self._running)

    def _start(self, now: float, slots: int) -> None:
        while self._running and self._running[0] <= now:
            free = heapq.heappop(self._running)
            if self._waiting and len(self._running) < slots:
                heapq.heappush(self._running, free + self._waiting.pop(0))
        while self._waiting and len(self._running) < slots:
            heapq.heappush(self._running, now + self._waiting.pop(0))


def played(policy: Policy, capacity: int = 12) -> list[tuple[int, str, str]]:
    """What a policy decides, when (in looks, one a second) and of which actor."""
    recorded = read()
    by_actor = defaultdict(list)
    for call in recorded.calls:
        by_actor[call.actor].append(call)
    queues = {actor: Queue(by_actor[actor], recorded.began) for actor in ACTORS}
    play, found = Play(dict.fromkeys(ACTORS, (1, 0)), capacity, slots=1), []
    for look in range(int((recorded.ended - recorded.began) * STRETCHED)):
        slots = {actor: sum(one == actor for one in play.hosts.values()) for actor in ACTORS}
        play.look({actor: queue.until(look, slots[actor]) for actor, queue in queues.items()})
        owners = dict(play.hosts)
        for decision in play.decide(policy):
            target = decision.key.rpartition(".")[2]
            found.append((look, decision.what, owners.get(target, target)))
    return found


def read() -> recording.Recorded:
    """The recording."""
    reports = msgspec.json.Decoder(Report).decode_lines(gzip.decompress(FILE.read_bytes()))
    return recording.read(reports, FILE.name)


def turns(found: list[tuple[int, str, str]], within: int) -> int:
    """How often an actor was given an instance soon after it had lost one, or the other way round."""
    last: dict[str, tuple[int, str]] = {}
    count = 0
    for look, what, actor in found:
        if actor in last and last[actor][1] != what and look - last[actor][0] <= within:
            count += 1
        last[actor] = look, what
    return count


class Eager(Policy):
    """As many as there are calls: neither two shares nor a window."""

    def decide(self, view: View, act: Act) -> None:
        """At once."""
        for one in loads(view):
            if one.calls > one.have:
                act.provision(one.actor, reason="more calls")
            if one.calls < one.have > 1:
                act.kill(one.idlest, reason="fewer calls")


def test_scale_follows_the_load_and_does_not_flap() -> None:
    """Each actor gets more when it is hot, and loses it afterwards; never both within five minutes."""
    found = played(loading.load("scale"))
    assert turns(found, within=300) == 0
    assert len(found) < 20
    assert {actor for _, what, actor in found if what == "provision"} == set(ACTORS)
    assert "kill" in {what for _, what, _ in found}


def test_this_load_makes_others_flap() -> None:
    """So that the test above says something: without hysteresis, and with a window that is too short."""
    assert turns(played(Eager()), within=300) > 100
    hasty = loading.load("scale")
    hasty.calm = 60  # type: ignore[attr-defined]
    assert turns(played(hasty), within=300) > 5


@pytest.mark.parametrize("capacity", [3, 4])
def test_reassign_does_not_take_back(capacity: int) -> None:
    """What an actor has lost it does not get back soon, and each end is followed by a start elsewhere."""
    found = played(loading.load("reassign"), capacity)
    assert turns(found, within=300) == 0
    begun = next(look for look, what, _ in found if what == "kill")
    pairs = [(what, actor) for look, what, actor in found if look >= begun]
    for (end, loser), (start, winner) in zip(pairs[::2], pairs[1::2], strict=True):
        assert (end, start) == ("kill", "provision")
        assert loser != winner
