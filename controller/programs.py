"""What a recorded run does, as a program: which call is made how long after which others.

Telemetry does not tell what a call waited for, so it is inferred from times. A call follows the one of its
maker that ended last before it was stored; those that follow the same one were made together. If that one was
made together with others, and all of them had ended, it follows all of them: so a fan-out is gathered.
"""

from __future__ import annotations

import heapq

import msgspec

from callboard.controller.recording import Recorded, RecordedCall, RecordedRun

_SLACK = 0.001
"""Seconds by which recorded times may be wrong."""


class Step(msgspec.Struct):
    """A call to be made.

    Attributes:
        call: as recorded.
        after: places of the calls that must have ended; one and the same list for calls that follow the same.
        think: seconds from then, or from its maker's beginning, until it is stored.
        program: what it does itself.
    """

    call: RecordedCall
    after: list[int]
    think: float
    program: Program


class Program(msgspec.Struct):
    """What a run or a call does.

    Attributes:
        steps: the calls that it makes.
        tail: seconds from the end of the last of them, or from the beginning, until it ends.
    """

    steps: list[Step]
    tail: float


class Play(msgspec.Struct):
    """A run to be played: when it begins, in seconds after the first one, and how long it took then.

    Attributes:
        key: that it is charged to, if any.
    """

    run: str
    at: float
    took: float
    program: Program
    workflow: str = ""
    session: str = ""
    key: str = ""


def programs(recorded: Recorded) -> list[Play]:
    """The runs that were recorded whole, in order of their beginnings."""
    made: dict[str, list[RecordedCall]] = {}
    for call in recorded.calls:
        made.setdefault(call.maker, []).append(call)
    whole = [
        (_began(run, made.get(run.run, [])), run) for run in {run.run: run for run in recorded.runs}.values()
    ]
    whole = [(began, run) for began, run in whole if began >= recorded.began]
    first = min((began for began, _ in whole), default=0.0)
    plays = [
        Play(
            run.run,
            began - first,
            run.took,
            _program(run.run, began, began + run.took, made),
            run.workflow,
            next((call.session for call in made.get(run.run, ())), run.run),
            run.key,
        )
        for began, run in whole
    ]
    return sorted(plays, key=lambda play: play.at)


def _began(run: RecordedRun, calls: list[RecordedCall]) -> float:
    """When a run began: it took longer than its calls, and half of the rest was before them."""
    if not calls:
        return run.told - run.took
    first, last = min(call.stored for call in calls), max(call.ended for call in calls)
    return first - max(0.0, run.took - (last - first)) / 2


def _program(maker: str, began: float, ended: float, made: dict[str, list[RecordedCall]]) -> Program:
    calls = sorted(made.get(maker, []), key=lambda call: call.stored)
    steps: list[Step] = []
    groups: list[list[int]] = []  # of each call: those made together with it
    open_, last = list[tuple[float, int]](), -1
    follows: list[int] = []
    over: set[int] = set()
    whole: tuple[list[int], int] = [], 0  # the last group that was seen to have ended
    for place, call in enumerate(calls):
        while open_ and open_[0][0] <= call.stored + _SLACK:  # each of them ended later than all before it
            last = heapq.heappop(open_)[1]
            over.add(last)
            follows = groups[last]
        if len(follows) > 1 and (follows is not whole[0] or len(follows) != whole[1]):
            if over.issuperset(follows):
                whole = follows, len(follows)
            else:
                follows = [last]
        if place and steps[-1].after is follows:
            groups.append(groups[-1])
            groups[-1].append(place)
        else:
            groups.append([place])
        heapq.heappush(open_, (call.ended, place))
        since = calls[last].ended if follows else began
        program = _program(call.future, call.started, call.ended, made)
        steps.append(Step(call, follows, max(0.0, call.stored - since), program))
    last_end = max((call.ended for call in calls), default=began)
    return Program(steps, max(0.0, ended - last_end))
