"""Options of the TensorRT engines that `diffood export` builds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from diffood.errors import UsageError
from diffood.export.request import EngineBuildRequest
from diffood.runtime.bundle.bundle import Precision
from diffood.runtime.bundle.engines import DEFAULT_PROFILE, EngineLibrary, Profile

PANEL = "Engines"


@dataclass(frozen=True)
class EngineOptions:
    """What engines to build, as given on the command line."""

    engine: Annotated[
        EngineLibrary | None, typer.Option(help="Also build TensorRT engines.", rich_help_panel=PANEL)
    ] = None
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="smNN[,smNN]",
            help="GPUs to build for, as sm86, 8.6 or 86; no GPU needed (tensorrt-rtx).",
            rich_help_panel=PANEL,
        ),
    ] = None
    engine_plan: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Plan to build engines of; default: the bundle's default and the calibration's; repeatable.",
            rich_help_panel=PANEL,
        ),
    ] = None
    engine_batch: Annotated[
        str,
        typer.Option(
            metavar="MIN,USUAL,MAX", help="Images of an engine call, which --batch chooses.", rich_help_panel=PANEL
        ),
    ] = f"{DEFAULT_PROFILE.smallest},{DEFAULT_PROFILE.usual},{DEFAULT_PROFILE.largest}"
    workspace: Annotated[
        int | None, typer.Option(metavar="MB", min=1, help="Memory the builder may use.", rich_help_panel=PANEL)
    ] = None
    timing_cache: Annotated[
        Path | None, typer.Option(help="File that makes the next build faster.", rich_help_panel=PANEL)
    ] = None

    def read(self, precisions: tuple[Precision, ...]) -> EngineBuildRequest | None:
        """The engines asked for, of graphs in these precisions; None where there are none. Raises UsageError."""
        profile = _read_profile(self.engine_batch)
        if self.engine is None:
            if self.gpu:
                raise UsageError("--gpu names what engines are built for: add --engine tensorrt-rtx.")
            if self.engine_plan:
                raise UsageError("--engine-plan names what engines are built of: add --engine.")
            return None
        gpus = tuple(self.gpu.split(",")) if self.gpu else ()
        plans = tuple(self.engine_plan or ())
        return EngineBuildRequest(
            self.engine, profile, gpus, precisions, plans, workspace_mb=self.workspace, timing_cache=self.timing_cache
        )


def _read_profile(text: str) -> Profile:
    try:
        smallest, usual, largest = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--engine-batch {text!r} is not of the form MIN,USUAL,MAX, such as 1,32,64.") from None
    if not 1 <= smallest <= usual <= largest:
        raise UsageError(f"--engine-batch {text!r} must ascend from 1 or more.")
    return Profile(smallest=smallest, usual=usual, largest=largest)
