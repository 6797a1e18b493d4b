"""Tables for people: printed in a terminal, written as Markdown, the same both times."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

WIDTH = 100  # where the output is no terminal
NAMED = 16  # the first column's least width, where a word of it needs that
GAP = 2  # between columns


@dataclass(frozen=True)
class Table:
    """Rows of cells under a head, with lines that say what they mean. A line end inside a cell is kept."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    main: bool = False  # whether it is printed where only the main ones are

    def rich(self, width: int = WIDTH) -> RichTable:
        """For a terminal of this ``width``. Cells are text, not markup: a model's name may have brackets."""
        table = RichTable(title=Text(self.title, "bold"), title_justify="left", box=None, padding=(0, GAP, 0, 0))
        columns = list(zip(self.head, *self.rows, strict=True))
        named = min(_longest(columns[0], str.split), NAMED)
        fits = named + GAP + sum(_longest(cells, str.splitlines) + GAP for cells in columns[1:]) <= width
        for index, name in enumerate(self.head):
            # A long model name wraps, at words while it can; numbers only where the terminal is too narrow for them.
            justify: JustifyMethod = "right" if index else "left"
            table.add_column(
                Text(name, "bold"),
                justify=justify,
                no_wrap=fits if index else not fits,
                overflow="fold",
                min_width=None if index else named,
                max_width=None if index or fits else NAMED,
            )
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def markdown(self) -> str:
        """For a file."""
        lines = [f"## {self.title}", "", _row(self.head), _row(["---", *["---:"] * (len(self.head) - 1)])]
        lines += [_row(row) for row in self.rows]
        return "\n".join([*lines, *(["", *(f"- {note}" for note in self.notes)] if self.notes else [])]) + "\n"


def _longest(cells: Sequence[str], parts: Callable[[str], list[str]]) -> int:
    return max((len(part) for cell in cells for part in parts(cell)), default=0)


def _row(cells: Sequence[str]) -> str:
    escaped = (cell.strip().replace("|", "\\|").replace("\n", "<br>") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def wide() -> Console:
    """Standard output, as wide as its terminal; where it is none, as wide as COLUMNS says, or wider than rich's 80."""
    console = Console(highlight=False)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=WIDTH)


@dataclass(frozen=True)
class Report:
    """What is printed and what is written: the same, or in print the main tables alone."""

    title: str
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    tables: tuple[Table, ...]

    def rich(self, width: int = WIDTH) -> list[RenderableType]:
        """For a terminal of this ``width``, block by block."""
        facts = RichTable.grid(padding=(0, 2, 0, 0))
        for name, value in self.facts:
            facts.add_row(Text(name), Text(value))
        blocks: list[RenderableType] = [Text(self.title, "bold"), facts]
        blocks += [Text(f"Warning: {warning}", "yellow") for warning in self.warnings]
        for table in self.tables:
            blocks += [Text(), table.rich(width), *([Text()] if table.notes else [])]
            for note in table.notes:
                line = RichTable.grid(padding=(0, 1, 0, 0))
                line.add_row(Text("-"), Text(note))
                blocks.append(line)
        return blocks

    def markdown(self) -> str:
        """For a file."""
        lines = [f"# {self.title}", "", *(f"- {name}: {value}" for name, value in self.facts), ""]
        lines += [f"**Warning: {warning}**\n" for warning in self.warnings]
        return "\n".join(lines) + "\n" + "\n".join(table.markdown() for table in self.tables)

    @property
    def brief(self) -> Report:
        """The same with its main tables alone; all where none is."""
        return replace(self, tables=tuple(table for table in self.tables if table.main) or self.tables)

    def show(self) -> None:
        """Print it on standard output."""
        console = wide()
        for block in self.rich(console.width):
            console.print(block)
