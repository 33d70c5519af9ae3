"""Dead letters that an operator sends again."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.support.board import Board, call_headers, packed
from tests.support.gates import Gate, anew
from tests.support.waiting import until

from callboard import CallboardError, agent, method, workflow
from callboard.actors.dead import AlreadyTold, DeadLetters
from callboard.infra import headers as H
from callboard.infra.messages.dead import DeadLetter

RAN: Counter[str] = anew(Counter())
GATE = Gate()


@agent(name="Mailer")
class OldMailer:
    """Cannot send."""

    @method
    async def count(self) -> int:
        """Something else."""
        return RAN["hello"]


@agent
class Mailer:
    """Can."""

    @method
    async def send(self, text: str) -> str:
        """Do something in the world, once the gate is open."""
        RAN[text] += 1
        await GATE.wait()
        return text


@agent
class Waiter:
    """Keeps a run going."""

    @method
    async def wait(self) -> None:
        """Until the gate is open."""
        RAN["waits"] += 1
        await GATE.wait()


@workflow
async def flow(text: str, *, patient: bool = False) -> str:
    """One call, whose failure is a value too."""
    try:
        said = await Mailer.send(text)
    except CallboardError as error:
        said = error.code
    if patient:
        await Waiter.wait()
    return said


async def dead_letters(board: Board) -> DeadLetters:
    """The letters of the board."""
    node = await board.node()
    return DeadLetters(node.store, node.reader, "test")


async def given_up(board: Board, *, patient: bool = False) -> tuple[str, DeadLetter]:
    """A run, and the letter of its call; by now there is a host that can run it."""
    old = await board.host(OldMailer)
    await board.host(flow, Waiter)
    run = await board.submit(flow, text="hello", patient=patient)
    (letter,) = await board.letters()
    await old.stop()
    await board.host(Mailer, max_deliver=2)
    return run, letter


async def test_a_call_whose_caller_was_told_is_refused(board: Board) -> None:
    """Nothing would come of it: the error says what to do instead, and nothing is sent."""
    run, letter = await given_up(board)
    assert bytes((await board.done(run)).value) == packed("poisoned")
    with pytest.raises(AlreadyTold, match=f"callboard show {run}") as caught:
        await (await dead_letters(board)).requeue(letter)
    assert caught.value.fields == {"id": f"{run}:1"}
    assert (await board.stream("CALLS"))["messages"] == 0
    assert RAN["hello"] == 0


@pytest.mark.parametrize("patient", [False, True])
async def test_it_runs_if_that_is_wanted(board: Board, *, patient: bool) -> None:
    """For what it does; whether its run has ended or goes on, the first outcome stays its outcome."""
    run, letter = await given_up(board, patient=patient)
    letter.headers[H.DEADLINE] = "1.5"  # was over long ago
    assert await (await dead_letters(board)).requeue(letter, again=True) == [f"{run}:1"]
    await until(lambda: RAN["hello"] == 1)
    GATE.set()
    await board.emptied("CALLS")
    first, last = [result for result in await board.results(run) if result.future == f"{run}:1"]
    assert first.error is not None
    assert (last.error, bytes(last.value)) == (None, packed("hello"))
    assert bytes((await board.done(run)).value) == packed("poisoned")


async def test_it_may_be_sent_again_more_than_once(board: Board) -> None:
    """Also to a host that has run it, and takes copies of what it has run for done."""
    _, letter = await given_up(board)
    letters = await dead_letters(board)
    GATE.set()
    for times in (1, 2):
        await letters.requeue(letter, again=True)
        await until(lambda times=times: RAN["hello"] == times)  # type: ignore[misc]
        await board.emptied("CALLS")


async def test_a_cancelled_run_does_not_stop_it(board: Board) -> None:
    """Hosts remember what was cancelled; what an operator wants goes before."""
    run, letter = await given_up(board, patient=True)
    await until(lambda: RAN["waits"] == 1)
    await (await board.client()).cancel(run)
    assert (await board.done(run)).status == "cancelled"
    GATE.set()
    await (await dead_letters(board)).requeue(letter, again=True)
    await until(lambda: RAN["hello"] == 1)
    await board.emptied("CALLS")


async def test_one_that_kills_its_hosts_is_a_letter_again(board: Board) -> None:
    """Sent again is not sent for ever."""
    run, letter = await given_up(board)
    node = await board.node()
    await node.topology.api("STREAM.PURGE.DEAD")
    await (await dead_letters(board)).requeue(letter, again=True)
    for number in (1, 2):
        await until(lambda number=number: RAN["hello"] == number)  # type: ignore[misc]
        victim = next(host for host in board._hosts if host.node.settings.max_deliver == 2)
        await board.host(Mailer, max_deliver=2)
        await board.kill(victim)
    (again,) = await board.letters()
    assert (again.reason, again.headers[H.FUTURE]) == ("too_many_deliveries", f"{run}:1")
    assert RAN["hello"] == 2


async def test_a_call_without_an_outcome_is_run_for_its_caller(board: Board) -> None:
    """And not where it was addressed: that host is gone."""
    GATE.set()
    head = H.decode(call_headers("lost:1", "send", Cb_Executor="h-gone"))
    subject = "cb.call.Mailer.h-gone.2"
    letter = DeadLetter(
        "Mailer", "refused_by_store", "", subject, headers=head, body=packed({"text": "lost"})
    )
    await board.host(Mailer)
    assert await (await dead_letters(board)).requeue(letter) == ["lost:1"]
    await board.emptied("CALLS")
    (result,) = await board.results("lost")
    assert bytes(result.value) == packed("lost")


async def test_a_request_becomes_a_new_run(board: Board) -> None:
    """Its own run has an outcome, and that stays."""
    GATE.set()
    await board.host(flow, Mailer)
    run = await board.submit(flow, text="first")
    await board.done(run)
    head = {H.RUN: run, H.MESSAGE_ID: run, H.DEADLINE: "1.5"}
    letter = DeadLetter(
        "flow", "too_many_deliveries", "", "cb.request.flow", headers=head, body=packed({"text": "second"})
    )
    dead = await dead_letters(board)
    with pytest.raises(AlreadyTold, match="as a new run"):
        await dead.requeue(letter)
    (fresh_run,) = await dead.requeue(letter, again=True)
    assert fresh_run != run
    assert bytes((await board.done(fresh_run)).value) == packed("second")
    assert bytes((await board.done(run)).value) == packed("first")


async def test_a_request_that_was_no_run_yet_keeps_its_id(board: Board) -> None:
    """Also where only the message id was the run's."""
    GATE.set()
    await board.host(flow, Mailer)
    letter = DeadLetter(
        "flow", "refused_by_store", "", "cb.request.flow", {H.MESSAGE_ID: "mine"}, b'{"text": "x"}'
    )
    assert await (await dead_letters(board)).requeue(letter) == ["mine"]
    assert (await board.done("mine")).status == "completed"
