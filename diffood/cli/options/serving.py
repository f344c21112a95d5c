"""The options of serve-batch alone: about its inputs, its output, where it runs and how it is watched."""

from pathlib import Path
from typing import Annotated

import typer

from diffood.runtime.inputs.decoding import MOST_PROCESSES
from diffood.serving.rows.formats import Format

_OUTPUT, _WATCHING = "Output", "Watching"

DecodeTimeout = Annotated[
    float,
    typer.Option(help="Seconds for one image, in a process.", min=0.1, max=86_400, rich_help_panel="Limits"),
]
Decoders = Annotated[
    int | None,
    typer.Option(
        help=f"Processes that read and decode, at most {MOST_PROCESSES}; 0: threads. Without: by the cores.",
        min=0,
        max=MOST_PROCESSES,
        rich_help_panel="Machine",
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT...", help="Files, folders, 'globs', @list.txt, - (paths), .tar, .parquet, URLs."),
]
ImageColumn = Annotated[str, typer.Option(help="A table's images: bytes or {bytes, path}.", rich_help_panel="Inputs")]
IdColumn = Annotated[str, typer.Option(help="A table's ids; without: row numbers.", rich_help_panel="Inputs")]
WatchFolder = Annotated[
    Path | None,
    typer.Option("--watch", help="Serve files put into this folder, as they come.", rich_help_panel="Inputs"),
]
WatchIdle = Annotated[
    float | None,
    typer.Option(help="Seconds without a new file that end --watch.", min=0, max=1e9, rich_help_panel="Inputs"),
]
Output = Annotated[Path, typer.Option(help="File .jsonl, .csv or .parquet; without an ending a folder of parts.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a run ended.", rich_help_panel=_OUTPUT)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Drop the rows of a run.", rich_help_panel=_OUTPUT)]
PartsFormat = Annotated[
    Format | None, typer.Option("--format", help="Of the parts of a folder: parquet.", rich_help_panel=_OUTPUT)
]
PartRows = Annotated[int, typer.Option(help="Rows of a part.", min=1, max=1_000_000, rich_help_panel=_OUTPUT)]
SaveFlagged = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep flagged files and what denoising made of them.", rich_help_panel=_OUTPUT),
]
MaxRejectRate = Annotated[
    float | None,
    typer.Option(help="Stop where more than this share of at least 100 files is refused.", rich_help_panel="Limits"),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(help="Prometheus metrics on 127.0.0.1; 0: any port.", min=0, max=65535, rich_help_panel=_WATCHING),
]
LogFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Append events as JSON lines.", rich_help_panel=_WATCHING)
]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Score on Ray: ray (one of this machine), auto, HOST:PORT or ray://HOST:PORT. See docs/cluster.md.",
        rich_help_panel="Machine",
    ),
]
