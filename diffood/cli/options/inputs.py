"""Options about what is read of inputs: columns of tables, and URLs."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from diffood.runtime.inputs.reading import DEFAULT_COLUMN, InputRules
from diffood.runtime.inputs.urls import UrlRules

_PANEL = "Inputs"


@dataclass(frozen=True)
class InputOptions:
    """What is read of inputs, as typed."""

    image_column: Annotated[
        str, typer.Option(help="Column of a table with images: bytes or {bytes, path}.", rich_help_panel=_PANEL)
    ] = DEFAULT_COLUMN
    id_column: Annotated[
        str, typer.Option(help="Column of a table with ids; default: row numbers.", rich_help_panel=_PANEL)
    ] = ""
    allow_protocol: Annotated[
        Literal["zip"] | None,
        typer.Option(help="Read members of a zip at a URL: zip://*.png::https://…", rich_help_panel=_PANEL),
    ] = None
    allow_private: Annotated[
        bool,
        typer.Option(
            "--allow-private",
            help="Let lists and redirects lead to private addresses.",
            rich_help_panel=_PANEL,
        ),
    ] = False

    def request(self) -> InputRules:
        """The same for `list_inputs`."""
        urls = UrlRules(zipped=self.allow_protocol == "zip", private=self.allow_private)
        return InputRules(self.image_column, self.id_column, urls)
