"""The words of a generated module: names that do not clash, literals, docstrings."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Iterable
from typing import Any

from callboard.actors.stubs.layout import WIDTH, bracketed

_BY_NAME = frozenset({"callboard", "callboard.actors.stubs.remote", "collections.abc", "typing"})


def identifier(text: str) -> str:
    """A Python name made from any text."""
    name = text
    if not text.isidentifier():
        name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "_"
    if name[0].isdigit():
        name = f"_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def is_identifier(text: str) -> bool:
    """Whether a text can stand as it is where Python expects a name."""
    return text.isidentifier() and not keyword.iskeyword(text)


def unique(name: str, taken: Iterable[str]) -> str:
    """The name itself, or with the first number that makes it another than those taken."""
    others = set(taken)
    found, number = name, 2
    while found in others:
        found, number = f"{name}_{number}", number + 1
    return found


class Imports:
    """The names that a module has from elsewhere, collected while it is written.

    Args:
        taken: every other name in the module, members of classes included: inside of a class those hide
            what is imported.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = frozenset(taken)
        self._modules: dict[str, str] = {}
        self._names: dict[str, set[str]] = {}

    def builtin(self, name: str) -> str:
        """How to write a builtin."""
        return name if name not in self._taken else self.dotted("builtins", name)

    def name(self, module: str, name: str) -> str:
        """How to write a name of a module."""
        if module not in _BY_NAME or name in self._taken:
            return self.dotted(module, name)
        self._names.setdefault(module, set()).add(name)
        return name

    def dotted(self, module: str, name: str) -> str:
        """How to write a name of a module behind the module's own."""
        alias = module
        if module.partition(".")[0] in self._taken or "." in module:
            alias = unique(f"_{module.replace('.', '_')}", self._taken)
        self._modules[module] = alias
        return f"{alias}.{name}"

    def lines(self) -> list[str]:
        """The import statements: the standard library's, then the others'."""
        standard = [line for m, n in self._sorted() if not _is_other(m) for line in self._statement(m, n)]
        others = [line for m, n in self._sorted() if _is_other(m) for line in self._statement(m, n)]
        return [*standard, *([""] if standard and others else []), *others]

    def _sorted(self) -> list[tuple[str, tuple[str, ...]]]:
        plain = [(module, ()) for module in sorted(self._modules)]
        return [
            *plain,
            *((m, tuple(sorted(self._names[m], key=_as_sorters_do))) for m in sorted(self._names)),
        ]

    def _statement(self, module: str, names: tuple[str, ...]) -> list[str]:
        if not names:
            alias = self._modules[module]
            return [f"import {module}" if alias == module else f"import {module} as {alias}"]
        line = f"from {module} import {', '.join(names)}"
        return [line] if len(line) <= WIDTH else bracketed(f"from {module} import ", names, "")


def _is_other(module: str) -> bool:
    return module.partition(".")[0] in {"callboard", "msgspec"}


def _as_sorters_do(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as isort and ruff have it."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


# -- literals -----------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """A string literal, quoted as formatters do it."""
    if '"' in text:
        return repr(text)
    escaped = repr("'" + text)  # the quote in front makes repr choose double ones
    return f'"{escaped[2:]}'


def literal(value: Any) -> str:
    """A plain value as Python writes it.

    Raises:
        TypeError: it has a part that is not plain.
    """
    if value is None or isinstance(value, bool | int):
        return repr(value)
    if isinstance(value, float):
        return repr(value) if value - value == 0 else f'float("{value}")'
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(literal(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
    raise TypeError(f"{type(value).__name__} is not plain")


def docstring(text: str, indent: str) -> list[str]:
    """The lines of a docstring; none for no text."""
    lines = [_escaped(line.rstrip()) for line in inspect.cleandoc(text).expandtabs().splitlines()]
    if not lines:
        return []
    lines[0] = lines[0].lstrip()
    if len(lines) == 1:
        end = "\\" if lines[0].endswith('"') else ""
        body = f'{lines[0][:-1]}{end}"' if end else lines[0]
        return [f'{indent}"""{body}"""']
    rest = [f"{indent}{line}" if line else "" for line in lines[1:]]
    return [f'{indent}"""{lines[0]}', *rest, f'{indent}"""']


def _escaped(line: str) -> str:
    line = line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in line)
