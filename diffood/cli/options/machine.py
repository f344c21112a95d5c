"""Options that say what a bundle runs on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from diffood.calibration.request import EngineRequest
from diffood.cli.options import shared as options
from diffood.cli.options.parsers import Precisions, precisions
from diffood.errors import UsageError
from diffood.runtime.backends import PLUGIN, PluginProvider
from diffood.runtime.detector import DEFAULT_BATCH

PANEL = "Machine"


@dataclass(frozen=True)
class BackendOptions:
    """A backend as asked for on the command line, and what a plug-in of ONNX Runtime needs besides its name."""

    backend: options.BackendName = "auto"
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Provider of --backend {PLUGIN}.", rich_help_panel=PANEL)
    ] = None
    provider_library: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its shared library.", rich_help_panel=PANEL)
    ] = None
    provider_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Repeatable.", rich_help_panel=PANEL)
    ] = None

    @property
    def backend_name(self) -> str:
        """The backend's whole name. Raises UsageError where the options do not fit together."""
        if self.provider is None or self.backend != PLUGIN:
            if self.provider or self.provider_library or self.provider_option:
                raise UsageError(f"--provider and its options go together, with --backend {PLUGIN}.")
            return self.backend
        pairs = tuple((key, value) for key, _, value in (text.partition("=") for text in self.provider_option or ()))
        library = self.provider_library and self.provider_library.absolute()
        try:
            return PluginProvider(self.provider, pairs, library).backend
        except ValueError as error:
            raise UsageError(f"--provider {self.provider} with its options cannot be used: {error}.") from None


@dataclass(frozen=True)
class MachineOptions(BackendOptions):
    """An engine as asked for on the command line."""

    precision: options.PrecisionName = None
    batch: options.Batch = DEFAULT_BATCH
    threads: options.Threads = 0

    def request(self) -> EngineRequest:
        """The same for `diffood.calibration`."""
        return EngineRequest(self.backend_name, self.precision, self.batch, self.threads)


@dataclass(frozen=True)
class FixedMachineOptions(MachineOptions):
    """The same for verbs that measure in one precision, whatever `diffood verify` let pass."""

    precision: options.FixedPrecision = "fp32"


@dataclass(frozen=True)
class VariantOptions(BackendOptions):
    """The same for verbs that go through every variant of a bundle."""

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
