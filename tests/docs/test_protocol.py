"""docs/protocol.md says what the code does: every table is held against it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.docs.pages import DOCS, headings, table, tables

import callboard
from callboard.actors import inbound
from callboard.actors.gateway import document
from callboard.actors.gateway import messages as gateway
from callboard.infra import errors, headers, messages, subjects, topology
from callboard.infra.messages import control, dead, telemetry
from callboard.infra.settings import Settings
from callboard.state import journal

PAGE = DOCS / "protocol.md"
TELEMETRY = DOCS / "telemetry.md"
SETTINGS = Settings()

# -- subjects --------------------------------------------------------------------------------------

SUBJECTS: dict[Callable[..., str], tuple[str, ...]] = {
    subjects.request: ("<workflow>",),
    subjects.call: ("<actor>", "<lane>", "<band>"),
    subjects.timer: ("<name>",),
    subjects.run_timer: ("<run>", "<name>"),
    subjects.run: ("<run>", "<kind>"),
    subjects.journal: ("<run>", "<kind>"),
    subjects.dead: ("<actor>",),
    subjects.control: ("<host>",),
    subjects.tokens: ("<run>", "<path>"),
    gateway.subject: ("<verb>", "<name>"),
    subjects.prefixes: ("<actor>",),
    subjects.steal: ("<host>",),
    subjects.telemetry: ("<source>",),
    subjects.registry: ("<key>",),
    subjects.run_summary: ("<run>",),
    subjects.runtime: ("<actor>", "<method>", "<size>"),
    subjects.runtime_curve: ("<actor>", "<method>"),
    subjects.question: ("<run>", "<path>"),
    subjects.policy: ("<key>",),
    subjects.route: ("<actor>",),
    subjects.session_route: ("<actor>", "<session>"),
    subjects.priority: ("<session>",),
    subjects.actor_priority: ("<session>", "<actor>"),
    subjects.admission: ("<workflow>",),
    subjects.budget: ("<name>",),
    subjects.decided: ("<epoch>",),
    subjects.policy_leader: (),
    subjects.policies: (),
    subjects.policies_running: (),
    subjects.state: ("<actor>", "<session>"),
    subjects.state_part: ("<actor>", "<session>", "<key>"),
}
"""What makes a subject, and what to call it with."""

OTHERS = {
    "token",
    "is_token",
    "new_id",
    "derived_id",
    "result_kind",
    "intent_kind",
    "children_kind",
    "commit_kind",
    "commit_name",
    "ack",  # JetStream's own
    "session_id",
    "session_token",
    "session_of",
}
"""What is public in ``subjects`` and makes no subject of Callboard's."""


def functions(module: types.ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public functions that a module defines."""
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__ and not name.startswith("_"):
            yield name, function


def test_subjects() -> None:
    """One row for each function that makes a subject, and no other."""
    makers = {make.__name__ for make in SUBJECTS if make.__module__ == subjects.__name__}
    assert {name for name, _ in functions(subjects)} == OTHERS | makers
    made = [make(*arguments) for make, arguments in SUBJECTS.items()]
    assert sorted(tables(PAGE, "Subjects")[0].column("subject")) == sorted(made)


def test_streams_of_subjects() -> None:
    """A subject that is said to be in a stream is taken by that stream, and none of the others by any."""
    declared = topology.declared(SETTINGS)
    for row in tables(PAGE, "Subjects")[0].records():
        subject = re.sub(r"<\w+>", "x", row["subject"])
        taken = [
            name for name, config in declared.items() if any(takes(s, subject) for s in config["subjects"])
        ]
        named = re.match(r"stream (\w+)", row["kind"])
        if row["kind"] == "bucket":
            assert [name.startswith("KV_") for name in taken] == [True]
        else:
            assert taken == ([named[1]] if named else [])


def takes(pattern: str, subject: str) -> bool:
    """Whether a subject with a wildcard at its end takes a subject."""
    return subject.startswith(pattern.removesuffix(">")) if pattern.endswith(">") else pattern == subject


def test_tokens_lanes_and_bands() -> None:
    """What the text says of the parts of a subject."""
    assert subjects.is_token("aZ0_-" * 25 + "abc")
    assert not subjects.is_token("a" * 129)
    assert (subjects.ANY, subjects.BANDS, subjects.EVERY_HOST) == ("any", (0, 1, 2), "all")


def test_kinds_of_the_journal() -> None:
    """Every kind that the journal writes has a row, with the struct that its body is."""
    source = inspect.getsource(journal.Journal)
    written = set(re.findall(r'subjects\.run\([^"\n]*"(\w+)"\)', source))
    assert "subjects.result_kind(" in source
    rows = dict(zip(*(tables(PAGE, "Subjects")[1].column(head) for head in ("kind", "body")), strict=True))
    own = {"result", "result.<parent>", "intent.<name>", "commit.<parent>.<maker>.<host>.<number>"}
    assert set(rows) == written | own
    ack = rows.pop("commit.<parent>.<maker>.<host>.<number>")  # JetStream's own
    assert ack == "the server's ack of a publish, in JSON"
    assert set(rows.values()) <= {name for name, _ in structs()}


# -- streams, consumers, buckets -------------------------------------------------------------------


def shown(value: Any) -> str:
    """A setting as the page writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ":".join(value.values())
    return str(value)


def duration(nanoseconds: int) -> str:
    """A duration as the page writes it."""
    seconds = nanoseconds // 1_000_000_000
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % length == 0 and seconds > 30:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def cells(items: list[str]) -> str:
    """Several values in one cell; a lone one has lost its marks on reading."""
    return items[0] if len(items) == 1 else " ".join(f"`{item}`" for item in items)


def test_what_all_streams_have() -> None:
    """The settings that every stream shares."""
    first = tables(PAGE, "Streams")[0]
    shared = {row["setting"]: row["value"].partition(" ")[0].strip("`") for row in first.records()}
    for config in topology.declared(SETTINGS).values():
        assert shared == {key: shown(config[key]) for key in shared}


def test_streams() -> None:
    """Every stream with all that is declared of it."""
    first, second = tables(PAGE, "Streams")
    expected = []
    for name, declared in topology.declared(SETTINGS).items():
        config = {key: value for key, value in declared.items() if key not in first.column("setting")}
        del config["name"]
        expected.append(
            [
                name,
                cells(config.pop("subjects")),
                config.pop("retention", "limits"),
                duration(config.pop("max_age", 0)).removeprefix("0s"),
                config.pop("discard"),
                cells([f"{key}={readable(key, value)}" for key, value in sorted(config.items())] or [""]),
            ]
        )
    assert second.rows == expected


def readable(key: str, value: Any) -> str:
    """The value of a stream's setting."""
    return duration(value) if key == "duplicate_window" else shown(value)


def test_consumers() -> None:
    """The three kinds of consumers: their names, filters and settings."""
    band = 2
    calls, calls_config = topology.call_consumer("<actor>", band, SETTINGS)
    lane, lane_config = topology.lane_consumer("<host>", SETTINGS)
    signals, signals_config = topology.signal_consumer(SETTINGS)
    requests, requests_config = topology.request_consumer("<workflow>", SETTINGS)
    made = [
        (requests, requests_config["filter_subject"]),
        (calls.replace(str(band), "<band>"), calls_config["filter_subject"].replace(str(band), "<band>")),
        (signals, signals_config["filter_subject"]),
        (lane, lane_config["filter_subject"]),
    ]
    rows = table(PAGE, "Consumers")
    assert list(zip(rows.column("consumer"), rows.column("filter"), strict=True)) == made
    text = PAGE.read_text("utf-8")
    idle = duration(lane_config.pop("inactive_threshold"))
    assert f"`inactive_threshold={idle}`" in rows.rows[-1][-1]
    for config in (calls_config, lane_config, requests_config, signals_config):
        del config["filter_subject"]
        for key, value in config.items():
            assert f"`{key}={duration(value) if key == 'ack_wait' else value}`" in text


def test_buckets() -> None:
    """Every bucket that has a name is there; those that are not made are said to be reserved."""
    named = {value for key, value in vars(subjects).items() if key.endswith("_BUCKET")}
    made = {
        name.partition("_")[2] for name in topology.declared(SETTINGS) if name.startswith(("KV_", "OBJ_"))
    }
    rows = table(PAGE, "Buckets").records()
    assert {row["bucket"] for row in rows} == named
    assert {row["bucket"] for row in rows if not row["value"].startswith("reserved")} == made


def test_numbers_of_telemetry() -> None:
    """What the numbers in columns stand for."""
    for heading, words_of in (("Ended", telemetry.ENDED), ("MovedCalls", telemetry.MOVED)):
        (row,) = [r for r in table(TELEMETRY, heading).records() if r["field"] in {"how", "why"}]
        assert tuple(re.findall(r"\d (\w+(?: \w+)?)", row["meaning"])) == tuple(
            word.replace("_", " ") for word in words_of
        )


# -- ids -------------------------------------------------------------------------------------------


def test_ids() -> None:
    """The examples of ids are ids, and their results stand where the page says."""
    for row in table(PAGE, "Ids").records():
        assert inbound.is_future_id(row["id"])
        assert subjects.result_kind(row["id"]) == row["its result stands under"]


# -- headers ---------------------------------------------------------------------------------------


def test_headers() -> None:
    """Every header that has a constant is in one of the tables, and no other."""
    constants = {
        key: value
        for key, value in vars(headers).items()
        if key.isupper() and not key.startswith("_") and isinstance(value, str)
    }
    media = {constants.pop("JSON"), constants.pop("MSGPACK")}
    own, of_nats = tables(PAGE, "Headers")
    assert sorted(own.column("header") + of_nats.column("header")) == sorted(constants.values())
    assert all(medium in PAGE.read_text("utf-8") for medium in media)


# -- bodies ----------------------------------------------------------------------------------------


def structs() -> list[tuple[str, type[msgspec.Struct]]]:
    """All structs that travel."""
    return [
        (name, cls)
        for found in pkgutil.iter_modules(messages.__path__, f"{messages.__name__}.")
        for module in [importlib.import_module(found.name)]
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, msgspec.Struct) and cls.__module__ == module.__name__
    ]


def page_of(cls: type[msgspec.Struct]) -> Path:
    """Where a struct is described."""
    return TELEMETRY if cls.__module__ == telemetry.__name__ else PAGE


def test_every_body_has_a_table() -> None:
    """No struct travels without a table of its own."""
    for name, cls in structs():
        assert name in headings(page_of(cls)), name


@pytest.mark.parametrize(("name", "cls"), structs())
def test_fields(name: str, cls: type[msgspec.Struct]) -> None:
    """Fields, in order, with their types and defaults."""
    found = [[row["field"], row["type"], row["default"]] for row in table(page_of(cls), name).records()]
    assert found == [[f.encode_name, words(f.type), default(f)] for f in msgspec.structs.fields(cls)]


_WORDS: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "boolean",
    bytes: "bytes",
    Any: "any",
    msgspec.Raw: "any",
    type(None): "nil",
}


def words(kind: Any) -> str:
    """A type in words that any language knows."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return f"list of {words(arguments[0])}"
    if origin is dict:
        return f"map of {words(arguments[1])}"
    if origin in {types.UnionType, typing.Union}:
        return " or ".join(words(one) for one in arguments)
    return _WORDS[kind] if kind in _WORDS else str(kind.__name__)


def default(field: msgspec.structs.FieldInfo) -> str:
    """A field's default as the page writes it; nothing where it must be given."""
    if field.required:
        return ""
    if field.default_factory is not msgspec.NODEFAULT:
        return repr(field.default_factory())
    if field.default is None or isinstance(field.default, msgspec.Raw):
        return "nil"
    if isinstance(field.default, bool):
        return shown(field.default)
    return repr(field.default).replace("'", '"')


def test_reasons_of_dead_letters() -> None:
    """The reasons that the code gives are those of the struct's own text, and of the page."""
    told = set(re.findall(r"``(\w+)``", str(dead.DeadLetter.__doc__))) - {"reason"}
    row = next(row for row in table(PAGE, "DeadLetter").records() if row["field"] == "reason")
    assert set(re.findall(r"`(\w+)`", row["meaning"])) == told


def test_control() -> None:
    """What a host can be told, by its tag."""
    union = {cls.__name__: str(cls.__struct_config__.tag) for cls in typing.get_args(control.Control)}
    rows = table(PAGE, "Control")
    assert dict(zip(rows.column("body"), rows.column("type"), strict=True)) == union
    answers = {row["answer"] for row in rows.records()} - {"none"}
    assert answers == {name for name, _ in inspect.getmembers(control, inspect.isclass)} & answers
    assert all(cls.__struct_config__.tag_field == "type" for cls in typing.get_args(control.Control))


# -- errors, sizes ---------------------------------------------------------------------------------


def error_classes(*, of_gateway: bool) -> dict[str, type[errors.CallboardError]]:
    """The error classes of the gateway, or all others of the package, by code."""
    for found in pkgutil.walk_packages(callboard.__path__, "callboard."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    known: dict[str, type[errors.CallboardError]] = {}
    waiting: list[type[errors.CallboardError]] = [errors.CallboardError]
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        place = cls.__module__
        ours = place.startswith("callboard.")  # not a test's own
        if ours and place.startswith("callboard.actors.gateway.") == of_gateway:
            assert known.setdefault(cls.code, cls) is cls, "two classes have one code"
    return known


@pytest.mark.parametrize(("heading", "of_gateway"), [("Errors", False), ("Gateway", True)])
def test_errors(heading: str, *, of_gateway: bool) -> None:
    """Every code with its class, and whether trying again can help."""
    rows = tables(PAGE, heading)[-1].records()
    assert {row["code"]: (row["class"], row["retryable"]) for row in rows} == {
        code: (cls.__name__, "yes" if cls.retryable else "no")
        for code, cls in error_classes(of_gateway=of_gateway).items()
    }


def test_verbs_of_the_gateway() -> None:
    """Every verb with its subject."""
    made = [
        gateway.subject(verb, one.name.replace("{", "<").replace("}", ">"))
        for verb, one in document.VERBS.items()
    ]
    assert tables(PAGE, "Gateway")[0].column("subject") == made


def test_sizes() -> None:
    """The sizes that the text names are the defaults."""
    assert (SETTINGS.inline_limit, SETTINGS.value_limit) == (64 << 10, 256 << 20)
    assert SETTINGS.pulse_every == 0.4
