"""``callboard mcp serve``: a board's tools and workflows for MCP clients, here the SDK's own."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import mcp_types as types
import pytest
from tests.cli.terminal import ENDS_WITHIN, Running, callboard, command, environment, free_port

from callboard import connect
from callboard.actors.mcp.server import BoardServer
from callboard.cli.exits import Exit
from callboard.infra.server import EmbeddedServer
from mcp import Client, MCPError, StdioServerParameters

APP = Path(__file__).with_name("app.py")
READY = '"event":"host_ready"'


@pytest.fixture(scope="module")
def board() -> Iterator[str]:
    """The address of a board with the application and an adopted server."""
    adopted = ("--mcp", f"{sys.executable} -m mcp_server_time")
    with EmbeddedServer() as server, Running("host", APP, *adopted, "--json", url=server.url) as host:
        host.until(READY)
        yield server.url


def offered(url: str, *names: str) -> StdioServerParameters:
    """How a client starts the server."""
    program, *arguments = command("mcp", "serve", *names)
    return StdioServerParameters(command=program, args=arguments, env=environment(url))


@pytest.fixture(scope="module")
def over_http(board: str) -> Iterator[str]:
    """Where the board is offered on the loopback interface."""
    port = free_port()
    with Running("mcp", "serve", "--http", port, "--json", url=board) as serving:
        serving.until("mcp_ready")
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.fixture(params=["stdio", "http"])
def served(request: pytest.FixtureRequest, board: str) -> StdioServerParameters | str:
    """How a client finds the server: it starts one, or asks the one that is there."""
    if request.param == "stdio":
        return offered(board)
    url: str = request.getfixturevalue("over_http")
    return url


async def noted(notes: Path, what: str) -> None:
    """Wait until a handler has noted this down."""
    async with asyncio.timeout(ENDS_WITHIN):
        while not await asyncio.to_thread(_is_noted, notes, what):
            await asyncio.sleep(0.01)


def _is_noted(notes: Path, what: str) -> bool:
    return notes.exists() and what in notes.read_text().splitlines()


async def test_tools_and_workflows_are_listed_and_called(board: str) -> None:
    """With their schemas; a tool is called in a run of its own, a workflow is one."""
    async with Client(offered(board)) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"by_position", "call", "double", "doubled", "held", "hold"}
        assert tools["double"].description == "Twice as much."
        assert tools["double"].input_schema["required"] == ["n"]
        assert tools["double"].input_schema["properties"]["n"]["type"] == "integer"
        called = await client.call_tool("double", {"n": 21})
        assert not called.is_error
        assert [block.text for block in called.content if block.type == "text"] == ["42"]
        called = await client.call_tool("doubled", {"numbers": [1, 2]})
        assert [block.text for block in called.content if block.type == "text"] == ["6"]
    async with connect(board) as ours:
        assert {"mcp_call", "doubled"} <= {run.workflow for run in await ours.runs()}


async def test_agents_are_offered_by_name(board: str) -> None:
    """Of a chosen agent, or adopted server, every method is a tool; results keep their structure."""
    async with Client(offered(board, "time", "double")) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {"double", "time__get_current_time", "time__convert_time"}
        called = await client.call_tool("time__get_current_time", {"timezone": "UTC"})
        assert called.structured_content is not None
        assert called.structured_content["timezone"] == "UTC"


async def test_errors_reach_the_client(board: str) -> None:
    """Those of a call are its result, as MCP has it; a tool that is not there is an error of the protocol."""
    async with Client(offered(board)) as client:
        wrong = await client.call_tool("double", {"n": "many"})
        assert wrong.is_error
        assert "Expected `int`, got `str`" in str(wrong.content)
        with pytest.raises(MCPError, match="no tool 'nothing'"):
            await client.call_tool("nothing", {})


async def test_progress_is_told(served: StdioServerParameters | str) -> None:
    """Each future that has finished is told while the workflow runs."""
    told: list[tuple[float, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    async with Client(served) as client:
        await client.call_tool("doubled", {"numbers": [1, 2, 3]}, progress_callback=hear)
    assert told == [(1, "double.call"), (2, "double.call"), (3, "double.call")]


async def test_a_result_is_given_also_where_progress_cannot_be_told(board: str) -> None:
    """The client may have closed what it is told by, or the board its events."""

    async def broken(*_: object) -> None:
        raise RuntimeError("nobody listens")

    session = SimpleNamespace(report_progress=broken)
    context: Any = SimpleNamespace(meta={"progress_token": 1}, session=session)
    params = types.CallToolRequestParams(name="doubled", arguments={"numbers": [1, 2]})
    async with connect(board) as client:
        result = await BoardServer(client, ())._call(context, params)
    assert (result.is_error, result.content) == (False, [types.TextContent(text="6")])


async def test_a_cancelled_call_tells_no_more_progress(board: str, tmp_path: Path) -> None:
    """Nothing goes on for it."""
    notes = tmp_path / "notes"
    context: Any = SimpleNamespace(meta={"progress_token": 1}, session=None)
    params = types.CallToolRequestParams(name="held", arguments={"note": str(notes)})
    async with connect(board) as client:
        server, before = BoardServer(client, ()), asyncio.all_tasks()
        async with anyio.create_task_group() as group:
            group.start_soon(server._call, context, params)
            await noted(notes, "holds")
            telling = {task for task in asyncio.all_tasks() - before if "_progress" in str(task.get_coro())}
            group.cancel_scope.cancel()
        await asyncio.wait(telling, timeout=ENDS_WITHIN)
        assert [task.cancelled() for task in telling] == [True]


@pytest.mark.parametrize("tool", ["held", "hold"])
async def test_cancelling_cancels_the_run(
    served: StdioServerParameters | str, tmp_path: Path, tool: str
) -> None:
    """The handler is stopped, and the run ends as cancelled."""
    notes = tmp_path / "notes"
    async with Client(served) as client:
        calling = asyncio.create_task(client.call_tool(tool, {"note": str(notes)}))
        await noted(notes, "holds")
        calling.cancel()
        await noted(notes, "let go")
        assert (await client.call_tool("double", {"n": 1})).content  # it goes on


async def test_a_client_that_goes_away_cancels_what_it_asked_for(
    served: StdioServerParameters | str, tmp_path: Path
) -> None:
    """Nobody waits for that any more."""
    notes = tmp_path / "notes"
    async with Client(served) as client:
        calling = asyncio.create_task(client.call_tool("held", {"note": str(notes)}))
        await noted(notes, "holds")
    await noted(notes, "let go")
    await asyncio.gather(calling, return_exceptions=True)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def test_over_http(board: str) -> None:
    """The same on the loopback interface."""
    port = free_port()
    with Running("mcp", "serve", "--http", port, "--json", url=board) as serving:
        await asyncio.to_thread(serving.until, "mcp_ready")
        async with asyncio.timeout(ENDS_WITHIN):
            while not await _listens(port):
                await asyncio.sleep(0.01)
        async with Client(f"http://127.0.0.1:{port}/mcp") as client:
            assert "42" in str((await client.call_tool("double", {"n": 21})).content)
        serving.send(signal.SIGTERM)
        assert await asyncio.to_thread(serving.wait) == Exit.OK
        assert "Traceback" not in serving.output


def test_a_port_that_is_taken(board: str) -> None:
    """Is told before anybody is told that clients are answered."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = callboard("mcp", "serve", "--http", other.getsockname()[1], url=board)
    assert (ended.code, ended.out) == (Exit.NO_SERVER, "")
    assert "Address already in use; name another port" in ended.err


def test_nothing_but_the_protocol_is_on_stdout(board: str) -> None:
    """A client that closes its end at once sees no byte, and the process ends well."""
    ended = subprocess.run(
        command("mcp", "serve"),
        env=environment(board),
        input=b"",
        capture_output=True,
        timeout=ENDS_WITHIN,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (Exit.OK, b"")


def test_what_is_not_there_cannot_be_offered(board: str) -> None:
    """It is told before anything is served."""
    ended = callboard("mcp", "serve", "doubt", url=board)
    assert ended.code == Exit.NOT_FOUND
    assert "there is no actor 'doubt' on this board; did you mean 'double'?" in ended.err
