"""Denoising: many trajectories in one fixed-shape batch, a lane refilled the moment its trajectory ends."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from diffood.runtime.method.schedule import NO_REGISTER, StepTable
from diffood.runtime.method.scoring import Array
from diffood.runtime.sessions import Session, StepInputs

Key = TypeVar("Key")


@dataclass(frozen=True)
class Trajectory(Generic[Key]):
    """One image's way down: x float32 [C, H, W], it or its latent, already noised; its table, label and guidance."""

    key: Key
    x: Array
    table: StepTable
    label: int
    guidance: float


class _Lane(Generic[Key]):
    """A trajectory and the next row of its table."""

    def __init__(self, trajectory: Trajectory[Key]) -> None:
        self.trajectory, self.row = trajectory, 0


class Lanes(Generic[Key]):
    """The lanes of a session: load trajectories into free ones, step all, and take those that ended.

    Memory is bounded by the session's batch. All tables must have the same number of registers.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lanes: list[_Lane[Key] | None] = [None] * session.batch
        self._free = list(reversed(range(session.batch)))

    @property
    def free(self) -> int:
        """Lanes that wait for a trajectory."""
        return len(self._free)

    @property
    def busy(self) -> int:
        """Lanes on their way."""
        return self._session.batch - len(self._free)

    def load(self, trajectory: Trajectory[Key]) -> None:
        """Put a trajectory into a free lane."""
        index = self._free.pop()
        self._session.put(index, trajectory.x)
        self._lanes[index] = _Lane(trajectory)

    def step(self) -> list[tuple[Key, Array]]:
        """Advance every lane by one row; (key, x̂ [C, H, W], unclamped) of each trajectory that ended and left."""
        self._session.step(_gather(self._lanes))
        ended = []
        for index, lane in enumerate(self._lanes):
            if lane is None:
                continue
            lane.row += 1
            if lane.row == len(lane.trajectory.table):
                self._lanes[index] = None
                self._free.append(index)
                ended.append((lane.trajectory.key, self._session.take(index)))
        return ended


def denoise(session: Session, trajectories: Iterator[Trajectory[Key]]) -> Iterator[tuple[Key, Array]]:
    """Yield (key, x̂ [C, H, W], unclamped) of each trajectory as it ends; one is pulled only when a lane is free."""
    lanes: Lanes[Key] = Lanes(session)
    while True:
        for fresh in itertools.islice(trajectories, lanes.free):
            lanes.load(fresh)
        if not lanes.busy:
            return
        yield from lanes.step()


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
