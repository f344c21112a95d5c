"""A plan's stages on ONNX Runtime's CPU provider, in calls of a fixed number of images, divided among threads."""

import math
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from diffood.runtime.assembly.recipe import Recipe, list_stages
from diffood.runtime.assembly.stage import build_stage
from diffood.runtime.sessions.cores import usable_cores
from diffood.runtime.sessions.onnxruntime import PROVIDER, FixedCalls, start_session

ROWS = 4
"""UNet evaluations of a call. More fill the caches: a row costs some percent more; fewer leave products too small."""


class CpuStages:
    """The graphs of a plan's stages."""

    def __init__(self, recipe: Recipe, threads: int = 0, images: int = 0) -> None:
        """Args: what to assemble; threads, 0 for all cores; images of a call, 0 to choose."""
        self.threads = threads or usable_cores()
        evaluations = max(1, len(recipe.tables) * (2 if recipe.plan.guidance > 0 else 1))
        self._stages: list[tuple[FixedCalls, list[str]]] = []
        for stage in list_stages(recipe.plan):
            session = start_session(build_stage(recipe, stage), PROVIDER, {}, 1, recipe.outside)
            rows = images or max(1, math.ceil(ROWS / (evaluations * max(1, stage.repeats))))
            outputs = [node.name for node in session.get_outputs()]
            self._stages.append((FixedCalls(session, rows, self.threads), outputs))

    def run(self, stage: int, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """See StageEngine.run."""
        calls, outputs = self._stages[stage]
        return dict(zip(outputs, calls.run(outputs, feeds), strict=True))
