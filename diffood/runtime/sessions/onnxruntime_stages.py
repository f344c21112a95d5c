"""A plan's stages on ONNX Runtime's CPU provider, in calls of a fixed number of images, divided among threads."""

import math
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.runtime.assembly.recipe import Recipe, list_stages
from diffood.runtime.assembly.stage import build_stage
from diffood.runtime.sessions.cores import usable_cores
from diffood.runtime.sessions.onnxruntime import PROVIDER, run_graph, start_session

ROWS = 4
"""UNet evaluations of a call. More fill the caches: a row costs some percent more; fewer leave products too small."""


class CpuStages:
    """The graphs of a plan's stages. The size of a call is fixed, since engines round differently in others."""

    def __init__(self, recipe: Recipe, threads: int = 0, images: int = 0) -> None:
        """Args: what to assemble; threads, 0 for all cores; images of a call, 0 to choose."""
        self.threads = threads or usable_cores()
        evaluations = max(1, len(recipe.tables) * (2 if recipe.plan.guidance > 0 else 1))
        self._sessions, self._images = [], []
        for stage in list_stages(recipe.plan):
            model = build_stage(recipe, stage)
            self._sessions.append(start_session(model, PROVIDER, {}, 1, recipe.outside))
            self._images.append(images or max(1, math.ceil(ROWS / (evaluations * max(1, stage.repeats)))))
        self._outputs = [[node.name for node in session.get_outputs()] for session in self._sessions]
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    def run(self, stage: int, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """See StageEngine.run."""
        session, size = self._sessions[stage], self._images[stage]
        taken = {node.name for node in session.get_inputs()}
        asked = {name: value for name, value in feeds.items() if name in taken}
        count = len(next(iter(asked.values())))
        todo = deque(range(-(-count // size)))
        found: list[Any] = [None] * len(todo)

        def work() -> None:
            while True:
                try:
                    call = todo.popleft()
                except IndexError:
                    return
                rows = {name: _filled_up(value[call * size : (call + 1) * size], size) for name, value in asked.items()}
                found[call] = run_graph(session, self._outputs[stage], rows)

        others = [self._pool.submit(work) for _ in range(min(self.threads, len(todo)) - 1)] if self._pool else []
        try:
            work()
        finally:
            todo.clear()
            wait(others)  # also if the first failed: no call may run on after this returns
        for other in others:
            other.result()
        joined = [np.concatenate(parts)[:count] for parts in zip(*found, strict=True)]
        return dict(zip(self._outputs[stage], joined, strict=True))


def _filled_up(rows: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])
