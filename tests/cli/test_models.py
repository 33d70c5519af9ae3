"""``callboard host --model``, and what models say in ``callboard run --watch``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.terminal import Running, Typed, callboard

from callboard.actors.listening import Piece
from callboard.actors.models.types import Price
from callboard.cli.exits import Exit
from callboard.cli.models import served_model
from callboard.cli.saying import Saying
from callboard.infra.server import EmbeddedServer

APP = """
from callboard import model, workflow

@workflow
async def ask(text: str) -> str:
    return (await model("writer").chat(text)).text
"""


@pytest.fixture(scope="module")
def models(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a host that has an application and serves a model."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "asking.py").write_text(APP)
    with EmbeddedServer() as server:
        more = ("--model", "writer", "--url", engine, "--json")
        with Running("host", "asking.py", *more, url=server.url, cwd=folder) as host:
            assert '"actors":["ask","writer"]' in host.until('"event":"host_ready"')
            yield server.url


def test_a_model_beside_an_application(models: str, typed: Typed) -> None:
    """Its workflows find it; it is listed as what it is."""
    assert typed("run", "ask", "--text", "to be", url=models).out == "to be \n"
    listed = {row["name"]: row for row in typed("actors", "--json", url=models).json}
    assert (listed["writer"]["kind"], listed["writer"]["methods"]) == ("model", ["chat", "complete", "embed"])


TOOLED = f"""
from callboard import model_at, tool
{APP}
@tool
async def compute() -> None: ...

writer = model_at("writer", url={{url!r}})
"""


@pytest.mark.parametrize(
    ("options", "served"),
    [
        ((), ["ask", "compute"]),
        (("--kind", "model"), ["writer"]),
        (("--kind", "tool"), ["compute"]),
        (("--kind", "model", "--kind", "workflow"), ["ask", "writer"]),
    ],
)
def test_models_are_apart_from_tools(
    options: tuple[str, ...], served: list[str], engine: str, nats_url: str, tmp_path: Path
) -> None:
    """Of an application that has both, one host serves one kind."""
    (tmp_path / "tooled.py").write_text(TOOLED.format(url=engine))
    with Running("host", "tooled.py", *options, "--json", url=nats_url, cwd=tmp_path) as host:
        told = json.loads(host.until('"event":"host_ready"'))
        assert sorted(told["actors"]) == served


def test_a_model_beside_tools(engine: str, nats_url: str, tmp_path: Path) -> None:
    """It is what was asked for: the tools are left to another host, and the log says so."""
    (tmp_path / "tooled.py").write_text(TOOLED.format(url=engine))
    more = ("--model", "other", "--url", engine, "--json")
    with Running("host", "tooled.py", *more, url=nats_url, cwd=tmp_path) as host:
        assert '"actor": "compute"' in host.until("actor_apart")
        told = json.loads(host.until('"event":"host_ready"'))
        assert sorted(told["actors"]) == ["ask", "other", "writer"]


@pytest.mark.parametrize(
    ("app", "options", "code", "told"),
    [
        ("tooled.py:compute,writer", (), Exit.FAILED, "cannot share a process"),
        ("tooled.py:compute", ("--model", "other"), Exit.FAILED, "cannot share a process"),
        ("tooled.py", ("--model", "writer"), Exit.USAGE, "give --model another name"),
        ("tooled.py", ("--kind", "agent"), Exit.FAILED, "declares no agent"),
    ],
)
def test_what_cannot_be_hosted_together(
    app: str, options: tuple[str, ...], code: int, told: str, tmp_path: Path
) -> None:
    """Is told before anything starts."""
    url = "http://127.0.0.1:1/v1"
    (tmp_path / "tooled.py").write_text(TOOLED.format(url=url))
    engine = ("--url", url) if "--model" in options else ()
    ran = callboard("host", tmp_path / app, *options, *engine)
    assert ran.code == code
    assert told in ran.err


def test_a_model_alone(engine: str, nats_url: str) -> None:
    """No application is needed."""
    with Running("host", "--model", "writer", "--url", engine, "--json", url=nats_url) as host:
        assert '"actors":["writer"]' in host.until('"event":"host_ready"')


def test_watching(models: str, typed: Typed) -> None:
    """What is said stands on stderr with its call, and in JSON lines."""
    ran = typed("run", "ask", "--text", "to be or not", "--watch", url=models)
    assert "1        | to be or not \n" in ran.err
    lines = typed("run", "ask", "--text", "to be", "--watch", "--json", url=models).lines
    said = [line for line in lines if line.get("event") == "tokens"]
    assert "".join(line["text"] for line in said) == "to be "
    assert said[-1]["done"] is True


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "nothing to host"),
        (("--url", "http://127.0.0.1:1/v1"), "--url needs the name of a model"),
        (("--model", "writer"), "--model writer needs one engine"),
        (("--model", "writer", "--url", "http://x/v1", "--vllm", "m"), "--model writer needs one engine"),
        (("--model", "writer", "--vllm", "m", "--api-key-env", "K"), "--api-key-env cannot go with --vllm"),
        (
            ("--model", "writer", "--url", "http://x/v1", "--kv-events"),
            "--kv-events cannot go with --url",
        ),
        (
            ("--model", "writer", "--url", "http://x/v1", "--vllm-arg=--a=1"),
            "--vllm-arg cannot go with --url",
        ),
        (("--model", "writer", "--url", "localhost:8000/v1"), "--url localhost:8000/v1 is no address"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], told: str, typed: Typed) -> None:
    """Are told before anything starts."""
    ran = typed("host", *options)
    assert ran.code == Exit.USAGE
    assert told in ran.err


def test_lines() -> None:
    """A line is told when it is complete; what begins anew is marked."""
    saying = Saying()
    assert saying.lines(Piece("one\ntw", "r:1")) == ["1        | one"]
    assert saying.lines(Piece("anew", "r:1", attempt=2, reset=True)) == [
        "1        | ...",
        "1        | (begins anew, attempt 2)",
    ]
    assert saying.lines(Piece(" end", "r:1", done=True)) == ["1        | anew end"]
    assert saying.open == {}


def test_last_words() -> None:
    """For a live table: the end of each answer that is given now."""
    saying = Saying()
    saying.take(Piece("some long story\nthat goes on", "r:1"))
    saying.take(Piece("x", "r:2"))
    assert saying.last(30, 5) == ["1 | story that goes on", "2 | x"]
    saying.take(Piece("", "r:1", done=True))
    assert saying.last(30, 5) == ["2 | x"]


def test_a_price(typed: Typed) -> None:
    """Two amounts; anything else is refused, as is one without a model."""
    served = served_model("m", "http://127.0.0.1:9/v1", None, None, None, None, "0.15,0.6")
    assert served is not None
    assert served.price == Price(0.15, 0.6)
    for wrong in ("1", "1,x", "1,-2", "1,2,3", "nan,1"):
        told = typed("host", "--model", "m", "--url", "http://127.0.0.1:9/v1", "--price", wrong)
        assert (told.code, "give INPUT,OUTPUT in dollars" in " ".join(told.err.split())) == (Exit.USAGE, True)
    assert "--price needs the name of a model" in typed("host", "--price", "1,2").err
