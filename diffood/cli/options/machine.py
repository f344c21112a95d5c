"""Options that say what a bundle runs on."""

from dataclasses import dataclass
from typing import Annotated

import typer

from diffood.calibration.request import EngineRequest
from diffood.cli.options import shared as options
from diffood.cli.options.parsers import Precisions, precisions
from diffood.runtime.detector import DEFAULT_BATCH


@dataclass(frozen=True)
class MachineOptions:
    """An engine as asked for on the command line."""

    backend: options.BackendName = "auto"
    precision: options.PrecisionName = None
    batch: options.Batch = DEFAULT_BATCH
    threads: options.Threads = 0

    def request(self) -> EngineRequest:
        """The same for `diffood.calibration`."""
        return EngineRequest(self.backend, self.precision, self.batch, self.threads)


@dataclass(frozen=True)
class FixedMachineOptions(MachineOptions):
    """The same for verbs that measure in one precision, whatever `diffood verify` let pass."""

    precision: options.FixedPrecision = "fp32"


@dataclass(frozen=True)
class VariantOptions:
    """The same for verbs that go through every variant of a bundle."""

    backend: options.BackendName = "auto"
    precision: Annotated[
        Precisions | None,
        typer.Option(
            metavar="P[,P]",
            parser=precisions,
            help="Precisions; default: all of the bundle.",
            rich_help_panel="Machine",
        ),
    ] = None
    batch: Annotated[
        int, typer.Option(help="Images that the engine works on at once.", min=1, max=4096, rich_help_panel="Machine")
    ] = DEFAULT_BATCH
    threads: options.Threads = 0
