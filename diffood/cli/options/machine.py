"""Options that say what a bundle runs on."""

from dataclasses import dataclass

from diffood.calibration.request import EngineRequest
from diffood.cli.options import shared as options
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
