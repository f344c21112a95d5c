"""Denoising: many trajectories in one fixed-shape batch, a lane refilled the moment its trajectory ends."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from diffood.runtime.schedule import NO_REGISTER, StepTable
from diffood.runtime.sessions import Array, Session, StepInputs

Key = TypeVar("Key")


@dataclass(frozen=True)
class Trajectory(Generic[Key]):
    """One image's way down: x float32 [C, H, W] already noised, its table, its label and guidance."""

    key: Key
    x: Array
    table: StepTable
    label: int
    guidance: float


class _Lane(Generic[Key]):
    """A trajectory and the next row of its table."""

    def __init__(self, trajectory: Trajectory[Key]) -> None:
        self.trajectory, self.row = trajectory, 0


def denoise(session: Session, trajectories: Iterator[Trajectory[Key]]) -> Iterator[tuple[Key, Array]]:
    """Yield (key, x̂ [C, H, W], unclamped) of each trajectory as it ends.

    Pulls a trajectory only when a lane is free, so memory is bounded by the session's batch. All tables must have
    the same number of registers.
    """
    lanes: list[_Lane[Key] | None] = [None] * session.batch
    more = True
    while True:
        for index, lane in enumerate(lanes):
            if lane is None and more:
                fresh = next(trajectories, None)
                if fresh is None:
                    more = False
                else:
                    session.put(index, fresh.x)
                    lanes[index] = _Lane(fresh)
        if all(lane is None for lane in lanes):
            return
        session.step(_gather(lanes))
        for index, lane in enumerate(lanes):
            if lane is None:
                continue
            lane.row += 1
            if lane.row == len(lane.trajectory.table):
                lanes[index] = None
                yield lane.trajectory.key, session.take(index)


def _gather(lanes: list[_Lane[Key] | None]) -> StepInputs:
    """The rows all lanes are at; an idle lane repeats its image unchanged (c_x = 1, c_eps = 0)."""
    batch = len(lanes)
    registers = next(lane.trajectory.table.weights.shape[1] for lane in lanes if lane is not None)
    inputs = StepInputs(
        time=np.zeros(batch, np.float32),
        label=np.zeros(batch, np.int64),
        guidance=np.zeros(batch, np.float32),
        coefficients=np.tile(np.array([0, 1, 1, 0], np.float32), (batch, 1)),
        weights=np.zeros((batch, registers), np.float32),
        store=np.full(batch, NO_REGISTER, np.int64),
    )
    for index, lane in enumerate(lanes):
        if lane is None:
            continue
        table = lane.trajectory.table
        inputs.time[index] = table.times[lane.row]
        inputs.label[index] = lane.trajectory.label
        inputs.guidance[index] = lane.trajectory.guidance
        inputs.coefficients[index] = table.coefficients[lane.row]
        inputs.weights[index] = table.weights[lane.row]
        inputs.store[index] = table.store[lane.row]
    return inputs
