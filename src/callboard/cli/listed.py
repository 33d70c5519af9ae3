"""A table that fits narrow terminals and keeps what people copy whole."""

from __future__ import annotations

import copy

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table

_LEAST = 16
"""Characters of a text below which it tells nothing."""
_GAP = 2


class Listed(Table):
    """A table whose first column is never cut; texts for which there is no room are left out."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render what there is room for."""
        texts = [column for column in self.columns if not column.no_wrap]
        needed = sum(_natural(column, console) + _GAP for column in self.columns if column.no_wrap)
        shown = copy.copy(self)
        if options.max_width - needed < (_LEAST + _GAP) * len(texts):
            shown.columns = [copy.copy(column) for column in self.columns if column.no_wrap]
        else:
            shown.columns = [copy.copy(column) for column in self.columns]
        if shown.columns and shown.columns[0].no_wrap:
            shown.columns[0].min_width = min(_natural(shown.columns[0], console), options.max_width)
        yield from Table.__rich_console__(shown, console, options)


def _natural(column: Column, console: Console) -> int:
    """How wide a column would be."""
    return max(console.measure(cell).maximum for cell in (column.header, *column.cells))
