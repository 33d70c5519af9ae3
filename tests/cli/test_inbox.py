"""``inbox``, ``answer`` and ``signal``: what runs ask and wait for, and telling them on the command line."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cli.terminal import Typed, eventually

from callboard import connect_sync


def asked(board: str, typed: Typed, workflow: str) -> tuple[str, str]:
    """A run that asks, and its question's id."""
    with connect_sync(board) as client:
        run = client.submit(workflow, {})

    ids: list[str] = []

    def found() -> bool:
        every = typed("inbox", "--json", url=board).json
        ids.extend(one["id"] for one in every if one["run"] == run)
        return bool(ids)

    eventually(found)
    return run, ids[0]


@pytest.mark.parametrize(
    ("workflow", "given", "expected"),
    [
        ("asks_plan", ["--title", "x", "--steps", "1", "2"], {"title": "x", "steps": [1, 2]}),
        ("asks_plan", ["--value", '{"title": "x", "steps": []}'], {"title": "x", "steps": []}),
        ("asks_text", ["--value", "12"], "12"),
    ],
)
def test_an_answer_goes_on(board: str, typed: Typed, workflow: str, given: list[str], expected: Any) -> None:
    """By fields, as JSON, or as text; the question is gone then."""
    run, question = asked(board, typed, workflow)
    shown = typed("inbox", url=board).out
    assert question in shown
    answered = typed("answer", question, *given, url=board)
    assert answered.code == 0, answered
    with connect_sync(board) as client:
        assert client.result(run, 20) == expected
    eventually(lambda: run not in typed("inbox", url=board).out)


def test_an_answer_that_does_not_fit(board: str, typed: Typed) -> None:
    """It is refused with the reason; so is one to nothing, and none at all."""
    run, question = asked(board, typed, "asks_plan")
    refused = typed("answer", run, "--value", '{"title": 1, "steps": []}', "--json", url=board)
    assert (refused.code, refused.json["error"]["code"]) == (2, "answer_invalid")
    assert typed("answer", question, url=board).code == 2
    assert typed("answer", "nothing:1", "--value", "1", url=board).code == 4
    assert typed("cancel", run, url=board).code == 0
    eventually(lambda: run not in typed("inbox", url=board).out)
    assert typed("inbox", "--to", "nobody", url=board).out == "nobody asks anything\n"


def test_fields_for_what_has_none(board: str, typed: Typed) -> None:
    """It says how to give one value."""
    run, question = asked(board, typed, "asks_text")
    refused = typed("answer", question, "--ok", "true", url=board)
    assert (refused.code, "give it as --value (string)" in refused.err) == (2, True)
    assert typed("cancel", run, url=board).code == 0


def test_show_tells_what_a_run_waits_for(board: str, typed: Typed) -> None:
    """While its driver has it: the driver is asked. Afterwards it says who was answered, and when it went on."""
    run, question = asked(board, typed, "asks_text")
    eventually(lambda: "human.ask" in typed("show", run, url=board).out)
    _, _, path = question.partition(":")
    calls = {call["path"]: call for call in typed("show", run, "--json", url=board).json["calls"]}
    assert (calls[path]["name"], calls[path]["state"]) == ("human.ask", "waiting")
    assert typed("answer", question, "--value", "x", url=board).code == 0
    with connect_sync(board) as client:
        client.result(run, 20)
    assert f"answer of {question} at " in typed("show", run, url=board).out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], None),
        (["--value", '{"sum": [400]}'], {"sum": [400]}),
        (["--value", "all of it"], "all of it"),
        (["--text", "0012"], "0012"),
        (["--value", "[" * 5000 + "]" * 5000], "[" * 5000 + "]" * 5000),
    ],
)
def test_a_signal_goes_on(board: str, typed: Typed, given: list[str], expected: Any) -> None:
    """As JSON, or as text, or with nothing to say; also before the run waits for it."""
    with connect_sync(board) as client:
        run = client.submit("listens", {})
        sent = typed("signal", run, "paid", *given, "--json", url=board)
        assert (sent.code, sent.json) == (0, {"run": run, "signal": "paid"})
        assert client.result(run, 20) == expected
    assert "paid at " in typed("show", run, url=board).out
    late = typed("signal", run, "paid", url=board)
    assert (late.code, "has ended" in late.err) == (4, True), late


def test_what_is_no_signal(board: str, typed: Typed) -> None:
    """A name that is taken, a run that there is not, and two values."""
    assert typed("signal", "nothing", "paid", url=board).code == 4
    assert typed("signal", "nothing", "cancel", url=board).code == 2
    assert typed("signal", "nothing", "paid", "--value", "1", "--text", "1", url=board).code == 2
