"""What models say, for ``callboard run --watch``: lines as they are complete, or the last words."""

from __future__ import annotations

from typing import Final

from callboard.actors.client import Client
from callboard.actors.listening import Piece
from callboard.cli.output import Output, err

_KEPT: Final = 2_000
_LAST: Final = 200


class Saying:
    """The answers that are being given: of each the end of what was said.

    Attributes:
        open: by the call's path, the text since the last whole line, or of a table the last words.
    """

    def __init__(self) -> None:
        self.open: dict[str, str] = {}

    def lines(self, piece: Piece) -> list[str]:
        """The lines that a piece completes, each with its call."""
        path = piece.future.partition(":")[2]
        said: list[str] = []
        if piece.reset:
            if self.open.pop(path, None):
                said.append(f"{path:<8} | ...")
            said.append(f"{path:<8} | (begins anew, attempt {piece.attempt})")
        *whole, rest = (self.open.pop(path, "") + piece.text).split("\n")
        if piece.lost:
            whole.append(f"{rest} (a part was not heard)")
            rest = ""
        if piece.done or len(rest) > _KEPT:
            whole += [rest] if rest else []
            rest = ""
        if rest:
            self.open[path] = rest
        return said + [f"{path:<8} | {line}" for line in whole]

    def take(self, piece: Piece) -> None:
        """Keep the last words of an answer until it is complete."""
        path = piece.future.partition(":")[2]
        said = "" if piece.reset else self.open.pop(path, "")
        if not piece.done:
            self.open[path] = (said + piece.text)[-_KEPT:]

    def last(self, width: int, most: int) -> list[str]:
        """The last words of the answers that are given now, a line each."""
        shown = list(self.open.items())[-most:]
        return [f"{path} | {' '.join(text[-_LAST:].split())[-max(10, width - 12) :]}" for path, text in shown]


async def tell(client: Client, run: str, saying: Saying, output: Output, *, live: bool) -> None:
    """Take in what models say in a run until it ends; print it, unless a live table shows it.

    Args:
        live: only keep it.
    """
    async for piece in client.tokens(run):
        if live:
            saying.take(piece)
        elif output.as_json:
            what = {"event": "tokens", "future": piece.future, "attempt": piece.attempt, "text": piece.text}
            marks = {"reset": piece.reset, "done": piece.done, "lost": piece.lost}
            output.line(what | {name: True for name, mark in marks.items() if mark}, "")
        else:
            for line in saying.lines(piece):
                err(line)
