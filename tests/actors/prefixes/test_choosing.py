"""Where a call goes, by what engines hold and have to do."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard import Message
from callboard.actors.models.types import ChatRequest, CompletionRequest, FunctionCall, ToolCall
from callboard.actors.prefixes.chain import MOST, PIECE, Chain, of_call, of_chat, of_prompt, of_request
from callboard.actors.prefixes.choosing import Engine, choose
from callboard.actors.prefixes.holders import Holders
from callboard.actors.prefixes.loads import Load, Loads
from callboard.infra.messages.registry import InstanceInfo, Pulse

SYSTEM = Message("system", "Be brief.")
TALK = [SYSTEM, Message("user", "hello"), Message("assistant", "hi"), Message("user", "and?")]


def common(one: Chain, other: Chain) -> int:
    """Links that two chains begin with."""
    pairs = zip(one.points, other.points, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one.points), len(other.points)))


# -- chains ----------------------------------------------------------------------------------------


def test_a_conversation_that_goes_on() -> None:
    """Its chain goes on, too; what comes first is an agent's, not the conversation's."""
    before, after = of_chat(TALK[:2]), of_chat(TALK)
    assert common(before, after) == len(before.points) == 2
    assert before.head == after.head == 1
    assert after.sizes == sorted(after.sizes)


@pytest.mark.parametrize(
    "other",
    [
        [Message("system", "Be long."), *TALK[1:]],
        [Message("developer", SYSTEM.text), *TALK[1:]],
        [Message("system", "Be brief.", name="x"), *TALK[1:]],
        [Message("system", [{"type": "text", "text": "Be brief."}]), *TALK[1:]],
        [Message("system", "Be brief.\0"), *TALK[1:]],
        [Message("system", "Be "), Message("system", "brief."), *TALK[1:]],
    ],
)
def test_another_beginning(other: list[Message]) -> None:
    """Whatever differs, nothing of the rest is held to be the same."""
    assert common(of_chat(TALK), of_chat(other)) == 0


def test_tools_come_first() -> None:
    """Templates put them before everything else."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert common(of_chat(TALK), of_chat(TALK, tools)) == 0
    assert of_chat(TALK, tools).head == 2


def test_calls_of_tools_count() -> None:
    """Two answers that ask for something else differ."""
    asks = [
        Message("assistant", None, tool_calls=[ToolCall("1", FunctionCall("f", a))]) for a in ("{}", "[]")
    ]
    chains = [of_chat([*TALK, ask, Message("tool", "x", tool_call_id="1")]) for ask in asks]
    assert common(*chains) == len(TALK)


@given(st.text(max_size=3 * PIECE), st.text(max_size=3 * PIECE))
def test_long_texts_are_alike_as_far_as_they_are(one: str, other: str) -> None:
    """In pieces; what is alike ends at one."""
    alike = 0
    while alike < min(len(one), len(other)) and one[alike] == other[alike]:
        alike += 1
    links = common(of_prompt(one), of_prompt(other))
    assert links >= alike // PIECE - 1
    assert links * PIECE <= alike or one == other


def test_a_call_and_what_its_engine_is_asked_are_the_same() -> None:
    """The maker reads the arguments as they travel, the host the request; both get the same chain."""
    request = ChatRequest(messages=TALK, tools=[{"type": "function"}])
    body = msgspec.msgpack.encode({"messages": TALK, "tools": request.tools, "repairs": 2})
    found = of_call("chat", body)
    assert found is not None
    assert found.points == of_request(request).points
    plain = [{"content": one.content, "role": one.role} for one in TALK]
    written = of_call("chat", msgspec.msgpack.encode({"messages": plain}))
    assert written is not None
    assert written.points == of_chat(TALK).points
    completion = of_call("complete", msgspec.msgpack.encode({"prompt": "once"}))
    assert completion is not None
    assert completion.points == of_request(CompletionRequest(prompt="once")).points


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode({"messages": 7})])
def test_what_cannot_be_read(body: bytes) -> None:
    """It has no chain; nor has what is no prompt."""
    assert of_call("chat", body) is None
    assert of_call("embed", msgspec.msgpack.encode({"texts": ["x"]})) is None


def test_chains_are_bounded() -> None:
    """Of a very long one the beginning counts."""
    assert len(of_prompt("x" * PIECE * (MOST + 9)).points) == MOST


# -- who holds what --------------------------------------------------------------------------------


def test_who_holds_how_much() -> None:
    """Each host as far as it goes; what it drops or loses does not count."""
    known = Holders()
    known.add([1, 2, 3], "a")
    known.add([1, 2], "b")
    assert known.depths([1, 2, 3, 4]) == {"a": 3, "b": 2}
    known.drop([3], "a")
    assert known.depths([1, 2, 3]) == {"a": 2, "b": 2}
    known.forget("a")
    assert (known.depths([1, 2]), known.count("a"), known.count("b")) == ({"b": 2}, 0, 2)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 40), max_size=9, unique=True))))
def test_what_is_known_is_bounded(added: list[tuple[str, list[int]]]) -> None:
    """The counts are those of what is left."""
    known = Holders(most=20)
    for host, points in added:
        known.add(points, host)
        assert len(known) <= 20
    for host in "ab":
        assert known.count(host) == sum(host in known.depths([point]) for point in range(41))


# -- loads -----------------------------------------------------------------------------------------


def test_calls_from_here_are_counted_once() -> None:
    """Whether the last heartbeat has them or not; those of others stay as it says."""
    alive: dict[str, Pulse] = {}
    loads = Loads(alive)

    def beat(busy: int, mailbox: int = 0) -> None:
        info = InstanceInfo(busy=busy, slots=8, mailbox=mailbox)
        alive["h"] = Pulse("h", 0.0, instances={"m": info})
        loads.heard(alive["h"])

    beat(3)
    assert loads.of("m", "h") == Load(3, 8)
    for _ in range(2):
        loads.sent("m", "h")
    assert loads.of("m", "h").calls == 5
    beat(4, 1)
    assert loads.of("m", "h").calls == 5
    for _ in range(3):  # one more than were sent
        loads.ended("m", "h")
    assert loads.of("m", "h").calls == 3
    for _ in range(2):
        beat(5)  # written before the two had ended
        assert loads.of("m", "h").calls == 3
    beat(0)
    assert loads.of("m", "h").calls == 0
    loads.left("h")
    assert loads.of("other", "h") == Load(0, 1)


# -- choosing --------------------------------------------------------------------------------------


def engine(host: str, calls: int = 0, depth: int = 0, held: int = 0, slots: int = 16) -> Engine:
    """One of those to choose from."""
    return Engine(host, Load(calls, slots), depth, held)


def test_a_conversation_goes_where_most_of_it_is() -> None:
    """Though another one has less to do, and holds something of it."""
    chosen = choose([engine("a"), engine("b", calls=3, depth=3), engine("c", depth=2)], of_chat(TALK))
    assert (chosen.host, chosen.why) == ("b", "it holds 16 of 20 characters")


def test_what_all_begin_with_binds_nobody() -> None:
    """A new conversation goes by load, and then to where least is."""
    chain = of_chat(TALK[:2])
    assert choose([engine("a", calls=1, depth=1), engine("b")], chain).host == "b"
    assert choose([engine("a", calls=1, depth=1), engine("b", calls=2)], chain).host == "a"
    assert choose([engine("a", depth=1, held=1), engine("b")], chain).host == "b"
    assert choose([engine("a", calls=4, slots=64), engine("b", calls=1, slots=4)], chain).host == "a"


def test_an_engine_is_sent_what_it_holds_up_to_a_bound() -> None:
    """Half of its slots, or half as much again as its share; then the one that holds next most, or the least."""
    chain = of_chat(TALK)
    assert choose([engine("a", calls=7, depth=4), engine("b")], chain).host == "a"
    spilled = choose([engine("a", calls=8, depth=4), engine("b", calls=1)], chain)
    assert spilled.host == "b"
    assert "a holds 20 of 20 characters, and has too much to do: 8 calls" in spilled.why
    assert choose([engine("a", calls=8, depth=4), engine("b", calls=5)], chain).host == "a"
    others = [engine("a", calls=30, depth=4), engine("b", calls=3, depth=2), engine("c")]
    assert choose(others, chain).host == "b"


@given(st.integers(2, 6), st.lists(st.integers(0, 5), min_size=200, max_size=200))
def test_no_engine_gets_far_more_than_its_share(engines: int, asked: list[int]) -> None:
    """Whatever is asked for, and nothing ever ends."""
    calls = [0] * engines
    chain = of_chat(TALK)
    for wanted in asked:
        those = [engine(str(n), calls[n], depth=4 if n == wanted else 0) for n in range(engines)]
        calls[int(choose(those, chain).host)] += 1
        assert max(calls) <= max(8, 1.5 * sum(calls) / engines + 1)


def test_without_a_chain() -> None:
    """The least loaded."""
    assert choose([engine("a", calls=1), engine("b")], None).host == "b"
