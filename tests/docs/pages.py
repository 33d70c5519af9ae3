"""Reading the documentation: fenced blocks, tables, headings and links of a Markdown file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(?P<info>.*)$")
_TITLE = re.compile(r'title="(?P<title>[^"]+)"')
_HEADING = re.compile(r"^(?P<marks>#+) (?P<text>.+)$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")
_CELL = re.compile(r"(?<!\\)\|")
_ESCAPED = "\\|"


def pages() -> list[Path]:
    """Every page that a reader can come to: the README's and those below ``docs``."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def name(page: Path) -> str:
    """A page's path from the root."""
    return page.relative_to(ROOT).as_posix()


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        language: the first word after the fence; title: the file that it stands for, or nothing.
        line: where it begins.
    """

    language: str
    title: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    info, begun, lines = "", 0, list[str]()
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if fence and not begun:
            info, begun, lines = fence["info"].strip(), number, []
        elif fence:
            title = _TITLE.search(info)
            text = "".join(f"{one}\n" for one in lines)
            found.append(Block(info.partition(" ")[0], title["title"] if title else "", text, begun))
            begun = 0
        else:
            lines.append(line)
    assert not begun, f"{name(page)}: the block of line {begun} has no end"
    return found


def prose(page: Path) -> Iterator[str]:
    """The lines outside of fenced blocks."""
    fenced = False
    for line in page.read_text("utf-8").splitlines():
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            yield line


def headings(page: Path) -> list[str]:
    """The texts of a page's headings."""
    return [found["text"] for line in prose(page) if (found := _HEADING.match(line))]


def anchors(page: Path) -> set[str]:
    """What a link can point to within a page, by GitHub's rules."""
    made: set[str] = set()
    for text in headings(page):
        plain = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        numbered = (f"{plain}-{number}" for number in range(1, 100))
        made.add(plain if plain not in made else next(one for one in numbered if one not in made))
    return made


def links(page: Path) -> list[str]:
    """The targets of a page's links and images."""
    text = "\n".join(re.sub(r"`[^`]*`", "", line) for line in prose(page))
    return [found["target"] or found["image"] for found in _LINK.finditer(text)]


class Table(NamedTuple):
    """A table: its heads, and its rows as cells without code marks around them."""

    heads: list[str]
    rows: list[list[str]]

    def column(self, head: str) -> list[str]:
        """All cells below a head."""
        place = self.heads.index(head)
        return [row[place] for row in self.rows]

    def records(self) -> list[dict[str, str]]:
        """The rows, each by its heads."""
        return [dict(zip(self.heads, row, strict=True)) for row in self.rows]


def tables(page: Path, heading: str) -> list[Table]:
    """The tables below a heading, up to the next one of any level."""
    inside = False
    lines: list[str] = []
    for line in prose(page):
        found = _HEADING.match(line)
        if found:
            inside = found["text"] == heading
        elif inside:
            lines.append(line)
    made = list(_tables(lines))
    assert made, f"{name(page)} has no table below {heading!r}"
    return made


def table(page: Path, heading: str) -> Table:
    """The only table below a heading."""
    (found,) = tables(page, heading)
    return found


def _tables(lines: list[str]) -> Iterator[Table]:
    gathered: list[str] = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            gathered.append(line)
        elif gathered:
            yield _table(gathered)
            gathered = []


def _table(lines: list[str]) -> Table:
    heads, _, *rows = [_cells(line) for line in lines]
    return Table(heads, rows)


def _cells(line: str) -> list[str]:
    cells = [cell.strip().replace(_ESCAPED, "|") for cell in _CELL.split(line.strip())[1:-1]]
    return [cell[1:-1] if re.fullmatch(r"`[^`]*`", cell) else cell for cell in cells]
