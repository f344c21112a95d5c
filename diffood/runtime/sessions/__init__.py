"""Engines behind one protocol: a session runs the stages of one plan of a bundle, and knows nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.method.plan import Plan

StageTensors = Mapping[str, npt.NDArray[Any]]  # [n, ...] by name, as assembly.stage.build_stage names them


@dataclass(frozen=True)
class SessionRequest:
    """What a session is opened for.

    Attributes:
        bundle: The bundle.
        plan: The plan whose stages it runs.
        precision: Of the graphs.
        batch: Images that the engine works on at once; on a GPU, of every call.
        threads: Of a CPU's engine; 0: all cores. GPUs ignore them.
    """

    bundle: Bundle
    plan: Plan
    precision: Precision
    batch: int
    threads: int = 0


class Session(Protocol):
    """What every backend offers. All calls of an engine have the same number of images. One thread at a time."""

    @property
    def backend(self) -> Backend:
        """Name and device, e.g. onnxruntime-cpu; part of the fingerprint."""

    @property
    def precision(self) -> Precision:
        """Precision of the graphs, e.g. fp32; part of the fingerprint."""

    @property
    def engine_sha256(self) -> str | None:
        """One hash over the plan files of a built engine, None where the graphs run as they are; likewise."""

    @property
    def batch(self) -> int:
        """Images that the engine works on at once; on a GPU, of every call."""

    @property
    def threads(self) -> int:
        """CPU threads that an engine call keeps busy, on which last bits may depend; 0 on a GPU."""

    def run(self, stage: int, feeds: StageTensors) -> StageTensors:
        """Outputs of a stage, from 0, for any number n of images; what is filled up to whole calls is dropped."""
