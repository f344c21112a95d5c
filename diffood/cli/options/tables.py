"""Options about the columns of tables with images."""

from dataclasses import dataclass
from typing import Annotated

import typer

from diffood.runtime.inputs.reading import DEFAULT_COLUMN, Columns

_PANEL = "Inputs"


@dataclass(frozen=True)
class TableOptions:
    """The columns of tables, as typed."""

    image_column: Annotated[
        str, typer.Option(help="Column of a table with images: bytes or {bytes, path}.", rich_help_panel=_PANEL)
    ] = DEFAULT_COLUMN
    id_column: Annotated[
        str, typer.Option(help="Column of a table with ids; default: row numbers.", rich_help_panel=_PANEL)
    ] = ""

    def request(self) -> Columns:
        """The same for `list_inputs`."""
        return Columns(self.image_column, self.id_column)
