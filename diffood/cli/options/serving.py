"""Options of serve-batch only: its inputs, its output, where it runs and how it is watched."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from diffood.runtime.inputs.decoding import MOST_PROCESSES
from diffood.serving.rows.formats.registry import DEFAULT_PARTS, ENDINGS, FORMATS

if TYPE_CHECKING:
    FormatChoice = str
else:
    FormatChoice = Literal[tuple(FORMATS)]  # the choices of typer; a checker wants them spelled out

_OUTPUT, _WATCHING, _VERDICTS = "Output", "Watching", "Verdicts"

Threshold = Annotated[
    float | None,
    typer.Option(help="Flag scores above this instead of the calibrated threshold.", rich_help_panel=_VERDICTS),
]
Fpr = Annotated[
    float | None,
    typer.Option(
        help="Choose the threshold for this false-alarm rate instead of the calibrated one.", rich_help_panel=_VERDICTS
    ),
]
DecodeTimeout = Annotated[
    float,
    typer.Option(help="Seconds for one image in a decoding process.", min=0.1, max=86_400, rich_help_panel="Limits"),
]
Decoders = Annotated[
    int | None,
    typer.Option(
        help=f"Processes that read and decode, at most {MOST_PROCESSES}; 0: threads. Default: by the number of cores.",
        min=0,
        max=MOST_PROCESSES,
        rich_help_panel="Machine",
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...", help="Files, folders, 'globs', @list.txt, - (paths), .tar, .zip, .parquet, URLs."
    ),
]
WatchFolder = Annotated[
    Path | None,
    typer.Option("--watch", help="Serve files as they arrive in this folder.", rich_help_panel="Inputs"),
]
Shuffle = Annotated[
    bool,
    typer.Option(
        "--shuffle",
        help="Serve in the order of a hash of the ids instead of folder by folder, for `diffood monitor`.",
        rich_help_panel="Inputs",
    ),
]
WatchIdle = Annotated[
    float | None,
    typer.Option(help="Seconds without a new file that end --watch.", min=0, max=1e9, rich_help_panel="Inputs"),
]
Output = Annotated[Path, typer.Option(help=f"File ({ENDINGS}); without an ending a folder of parts.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue where a run ended.", rich_help_panel=_OUTPUT)]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the rows of an earlier run.", rich_help_panel=_OUTPUT)
]
PartsFormat = Annotated[
    FormatChoice | None,
    typer.Option(
        "--format",
        help=f"Format of the parts of a folder; default: {DEFAULT_PARTS}.",
        rich_help_panel=_OUTPUT,
    ),
]
PartRows = Annotated[int, typer.Option(help="Rows per part.", min=1, max=1_000_000, rich_help_panel=_OUTPUT)]
SaveFlagged = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep flagged files and their denoised pictures.", rich_help_panel=_OUTPUT),
]
ExportLabels = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Keep files that people are to label, as `diffood feedback` asks.", rich_help_panel=_OUTPUT
    ),
]
FalseDiscoveryRate = Annotated[
    float | None,
    typer.Option(
        "--fdr",
        metavar="SHARE",
        help="Select images so that at most this share of the selected is in-distribution, on average.",
        rich_help_panel=_OUTPUT,
    ),
]
MaxRejectRate = Annotated[
    float | None,
    typer.Option(help="Stop if more than this share of at least 100 files is refused.", rich_help_panel="Limits"),
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
        help="Score on Ray: ray (started on this machine), auto, HOST:PORT or ray://HOST:PORT. See docs/cluster.md.",
        rich_help_panel="Machine",
    ),
]
