"""What an export is asked for. Read without torch or onnx."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffood.errors import UsageError
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.bundle.bundle import Precision
from diffood.runtime.bundle.engines import EngineLibrary, Profile
from diffood.runtime.inputs.reading import DEFAULT_RULES, InputRules
from diffood.runtime.onnx.parts import OLDEST_OPSET

OPSET = 21  # the first with GroupNormalization, which FP16 graphs keep; below, it is written as smaller nodes
# Bytes of weights above which a graph keeps them in a file of their own. protobuf's own limit is 2 GiB; far below it a
# graph in one piece costs what a large model cannot spare: torch, onnx and the engine each hold copies of the whole
# message, and the step graphs with and without guidance hold the same weights, twice on disk.
LARGEST_INSIDE = 2**28


FEWEST_IMAGES = 16  # for the value ranges of int8
IMAGES = 64  # of those given, evenly, that are used for it

ProofScope = Literal["quick", "full"]
"""Times step graphs are proven at: those the plans ask for, the ends and some between, or all of the schedule."""


@dataclass(frozen=True)
class EngineBuildRequest:
    """The TensorRT engines to build of a bundle's plans.

    Attributes:
        library: tensorrt builds for this machine's GPU, tensorrt-rtx for any and without one.
        profile: Images of an engine call.
        gpus: As "sm86", "8.6" or "86", for tensorrt-rtx alone.
        precisions: Of the graphs; empty for all the bundle has.
        plans: Names of the plans; empty for the bundle's default one and its calibration's.
        workspace_mb: Memory the builder may use; None for all.
        timing_cache: File that makes the next build faster, for tensorrt alone.

    """

    library: EngineLibrary
    profile: Profile
    gpus: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ()
    plans: tuple[str, ...] = ()
    workspace_mb: int | None = None
    timing_cache: Path | None = None


@dataclass(frozen=True)
class ExportRequest:
    """A bundle to make, or what to add to one.

    Attributes:
        bundle: Its folder.
        sources: The models to export; None to add to a bundle there is.
        overwrite: Whether a bundle that is there may be replaced.
        precisions: Of the graphs; fp32 is always made.
        opset: Of the graphs.
        proof: At which times of the schedule the graphs are proven.
        images: In-distribution images to try the classifier on, and for the value ranges of int8: files, folders and
            whatever else holds images.
        rules: Columns of tables, and which URLs are opened.
        engines: Engines to build of them, if any.
        largest_inside: Bytes of weights above which a graph keeps them in a file of their own.

    """

    bundle: Path
    sources: ModelSources | None = None
    overwrite: bool = False
    precisions: tuple[Precision, ...] = ()
    opset: int = OPSET
    proof: ProofScope = "quick"
    images: tuple[str, ...] = ()
    rules: InputRules = DEFAULT_RULES
    engines: EngineBuildRequest | None = None
    largest_inside: int = LARGEST_INSIDE

    def __post_init__(self) -> None:
        """Raise UsageError for an opset that graphs cannot be written in."""
        if not OLDEST_OPSET <= self.opset <= OPSET:
            raise UsageError(f"--opset {self.opset} is not possible: choose {OLDEST_OPSET} to {OPSET}.")
