"""Tables as plain lines of at most `WIDTH` columns: no colours, nothing cut off, on a terminal and in a pipe alike."""

import io
from collections.abc import Iterable, Sequence

from rich.console import Console  # noqa: TID251 - for its lines
from rich.table import Table

from diffood.runtime.printable import escape_for_terminal

WIDTH = 100


def table_lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table. The first column is aligned left, the others right; the widest wraps where it must."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape_for_terminal, row))  # before their widths are taken
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]
