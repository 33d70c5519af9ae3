"""``callboard dead``: what nobody could handle, until an operator decides."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
from collections.abc import Iterator
from typing import Any

import nats
import pytest
from tests.cli.terminal import APP, ENDS_WITHIN, Running, Typed, command, environment, eventually

from callboard.cli.exits import Exit
from callboard.infra.server import EmbeddedServer

HOSTS = f"{APP}:add,hold"


def publish(url: str, subject: str, body: bytes, headers: dict[str, str] | None = None) -> None:
    """Store a message as any NATS client can."""

    async def store() -> None:
        client = await nats.connect(url)
        await client.jetstream().publish(subject, body, headers=headers)
        await client.close()

    asyncio.run(store())


@pytest.fixture
def letters(nats_url: str, typed: Typed) -> Iterator[list[dict[str, Any]]]:
    """Two calls of `add` and one of `hold` that cannot be decoded, dead; the host is still there."""
    with Running("host", HOSTS, "--json", url=nats_url) as host:
        host.until('"event":"host_ready"')
        publish(nats_url, "cb.call.add.any.1", b'{"a": 1}', {"X-Note": "first"})
        publish(nats_url, "cb.call.add.any.1", b"\xff\xfe")
        publish(nats_url, "cb.call.hold.any.1", b"")
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = typed("dead", "list", "--json", url=nats_url).json
            return len(found) == 3

        eventually(there)
        yield found


def sequences(url: str, typed: Typed, *options: str) -> list[int]:
    """The dead letters that there are now."""
    return [letter["sequence"] for letter in typed("dead", "list", "--json", *options, url=url).json]


def test_they_are_listed(nats_url: str, letters: list[dict[str, Any]], typed: Typed) -> None:
    """With actor, reason and how often; by actor, and at most so many."""
    assert {letter["actor"] for letter in letters} == {"add", "hold"}
    assert all(letter["reason"] == "undecodable" for letter in letters)
    text = typed("dead", "list", url=nats_url).out.splitlines()
    assert [line.split()[:3] for line in text[1:]] == [
        [str(one["sequence"]), one["actor"], one["reason"]] for one in letters
    ]
    held = [one["sequence"] for one in letters if one["actor"] == "hold"]
    assert sequences(nats_url, typed, "--actor", "hold") == held
    assert sequences(nats_url, typed, "--limit", "2") == [one["sequence"] for one in letters][:2]


def test_one_is_shown_as_it_was(nats_url: str, letters: list[dict[str, Any]], typed: Typed) -> None:
    """Headers and body, whatever the body is."""
    shown = [typed("dead", "show", one["sequence"], "--json", url=nats_url).json for one in letters]
    first = next(one for one in shown if one["headers"].get("X-Note") == "first")
    assert first["body"] == {"a": 1}
    assert (first["subject"], first["origin"]["stream"]) == ("cb.call.add.any.1", "CALLS")
    assert first["detail"]
    text = typed("dead", "show", first["sequence"], url=nats_url).out
    assert "X-Note: first" in text
    assert first["detail"] in text


def test_one_that_is_not_there(nats_url: str, letters: list[dict[str, Any]], typed: Typed) -> None:
    """Exit code 4; and nothing is sent again if one of several is unknown."""
    assert typed("dead", "show", 999, url=nats_url).code == Exit.NOT_FOUND
    first = letters[0]["sequence"]
    assert typed("dead", "requeue", first, 999, url=nats_url).code == Exit.NOT_FOUND
    assert first in sequences(nats_url, typed)


def test_requeued_ones_are_handled_again(nats_url: str, letters: list[dict[str, Any]], typed: Typed) -> None:
    """They leave the list, and come back as new letters if they cannot be handled now either."""
    chosen = [letter["sequence"] for letter in letters if letter["actor"] == "add"]
    told = typed("dead", "requeue", *chosen, "--json", url=nats_url)
    assert (told.code, told.json) == (Exit.OK, {"requeued": [{"sequence": n, "id": ""} for n in chosen]})
    eventually(lambda: len(sequences(nats_url, typed)) == 3)
    assert not set(chosen) & set(sequences(nats_url, typed))
    shown = [typed("dead", "show", n, "--json", url=nats_url).json for n in sequences(nats_url, typed)]
    assert [one["headers"].get("X-Note") for one in shown if one["actor"] == "add"].count("first") == 1


def test_a_call_whose_caller_was_told(nats_url: str, typed: Typed) -> None:
    """Is sent again only when asked twice, and then under the id that it had."""
    with Running("host", f"{APP}:add", "--json", url=nats_url) as host:
        host.until('"event":"host_ready"')
        publish(nats_url, "cb.call.add.any.1", b"\x80", {"Cb-Future": "r:1", "Cb-Method": "gone"})
        eventually(lambda: len(sequences(nats_url, typed)) == 1)
    (letter,) = sequences(nats_url, typed)
    refused = typed("dead", "requeue", letter, url=nats_url)
    assert (refused.code, refused.out) == (Exit.FAILED, "")
    assert "--again" in refused.err
    assert sequences(nats_url, typed) == [letter]
    told = typed("dead", "requeue", letter, "--again", url=nats_url)
    assert (told.code, told.out) == (Exit.OK, f"sent again: {letter} (r:1)\n")
    assert sequences(nats_url, typed) == []


def test_purging(nats_url: str, letters: list[dict[str, Any]], typed: Typed) -> None:
    """Needs --yes where nobody can be asked; one actor's or all."""
    assert typed("dead", "purge", url=nats_url).code == Exit.USAGE
    assert len(sequences(nats_url, typed)) == 3
    assert typed("dead", "purge", "--actor", "add", "--yes", "--json", url=nats_url).json == {"purged": 2}
    assert sequences(nats_url, typed) == [one["sequence"] for one in letters if one["actor"] == "hold"]
    assert typed("dead", "purge", "-y", url=nats_url).out.strip() == "dropped 1"
    assert typed("dead", "list", url=nats_url).out.strip() == "no dead letters"


def test_purging_one_by_one(nats_url: str, letters: list[dict[str, Any]], typed: Typed) -> None:
    """Those that are named, as `show` and `requeue` take them; nothing goes if one of them is not there."""
    first, second, third = (letter["sequence"] for letter in letters)
    assert "dead letter 999" in typed("dead", "purge", first, 999, "--yes", url=nats_url).err
    asked = typed("dead", "purge", first, second, url=nats_url)
    assert (asked.code, f"drops dead letters {first}, {second} for good" in asked.err) == (Exit.USAGE, True)
    assert typed("dead", "purge", first, "--actor", "add", "--yes", url=nats_url).code == Exit.USAGE
    assert sequences(nats_url, typed) == [first, second, third]
    assert typed("dead", "purge", first, first, third, "--yes", "--json", url=nats_url).json == {"purged": 2}
    assert sequences(nats_url, typed) == [second]


def test_what_is_no_letter(nats_url: str, letters: list[dict[str, Any]], typed: Typed) -> None:
    """Anybody can publish there: it is listed, shown and dropped, and cannot be sent again."""
    publish(nats_url, "cb.dead.add", b"rubbish", {"X-Note": "odd"})
    publish(nats_url, "cb.dead.a.b.c", b"\xc1")
    found = typed("dead", "list", "--json", url=nats_url).json[len(letters) :]
    assert [(one["actor"], one["reason"]) for one in found] == [
        ("add", "unreadable"),
        ("a.b.c", "unreadable"),
    ]
    number = found[0]["sequence"]
    shown = typed("dead", "show", number, url=nats_url).out
    assert ("rubbish" in shown, "X-Note: odd" in shown, "purge" in shown) == (True, True, True)
    refused = typed("dead", "requeue", number, url=nats_url)
    assert (refused.code, f"what lies at {number} is no dead letter" in refused.err) == (Exit.FAILED, True)
    assert typed("dead", "purge", number, "--yes", "--json", url=nats_url).json == {"purged": 1}
    assert typed("dead", "purge", "--yes", "--json", url=nats_url).json == {"purged": len(letters) + 1}
    assert sequences(nats_url, typed) == []


@pytest.mark.parametrize(("answer", "left"), [("n\n", 1), ("\n", 1), ("y\n", 0)])
def test_purging_asks_on_a_terminal(
    answer: str, left: int, nats_server: EmbeddedServer, typed: Typed
) -> None:
    """Only a yes drops anything."""
    url = nats_server.url
    with Running("host", HOSTS, "--json", url=url) as host:
        host.until('"event":"host_ready"')
        publish(url, "cb.call.add.any.1", b"")
        eventually(lambda: len(sequences(url, typed)) == 1)
    master, slave = pty.openpty()
    os.write(master, answer.encode())
    ended = subprocess.run(
        command("dead", "purge"), stdin=slave, env=environment(url), capture_output=True,
        timeout=ENDS_WITHIN, check=False,
    )  # fmt: skip
    os.close(master)
    os.close(slave)
    assert ended.returncode == Exit.OK
    assert b"for good? [y/N]" in ended.stdout
    assert len(sequences(url, typed)) == left
