"""What ``--help`` shows of every command: all that its text says, as it says it."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cyclopts import App
from tests.cli.terminal import Typed

from callboard.cli import commands

_EXAMPLE = re.compile(r"^ {4,}((?:callboard|nats) .*)$", re.MULTILINE)
_PLACE = re.compile(r"\S*[<>]\S*")
_WIDE = {"COLUMNS": "200"}


def every() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each command with the function whose docstring is its help."""
    for name, target, _, _ in commands._COMMANDS:
        module, _, attribute = target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, App):
            yield name, found
            continue
        for inner in found:
            command = found[inner].default_command
            if command is not None and not inner.startswith("-"):
                yield f"{name} {inner}", command


EVERY = dict(every())


def text_of(name: str) -> str:
    """What a command says of itself, without the list of its arguments."""
    return (inspect.getdoc(EVERY[name]) or "").partition("\nArgs:")[0]


@pytest.mark.parametrize("name", EVERY)
def test_examples_stand_on_lines_of_their_own(name: str, typed: Typed) -> None:
    """They can be copied."""
    lines = [line.strip() for line in typed(*name.split(), "--help", **_WIDE).out.splitlines()]
    assert [one for one in _EXAMPLE.findall(text_of(name)) if one not in lines] == []


@pytest.mark.parametrize("name", EVERY)
def test_no_word_is_lost(name: str, typed: Typed) -> None:
    """What stands in angle brackets is no markup."""
    out = typed(*name.split(), "--help", **_WIDE).out
    assert [one for one in _PLACE.findall(text_of(name)) if one not in out] == []


@pytest.mark.parametrize("name", EVERY)
def test_flags_that_are_off_have_no_negative(name: str, typed: Typed) -> None:
    """Only what is on by default can be turned off: nothing else needs a second name."""
    out = typed(*name.split(), "--help", **_WIDE).out
    assert [line for line in out.splitlines() if "--no-" in line and "[default: False]" in line] == []
