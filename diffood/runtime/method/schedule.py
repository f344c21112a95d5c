"""Schedules as tables: a row is one UNet evaluation and one linear update. No engine, no loop.

Positions count noising steps: position p has the noise level alpha_bar[p], position 0 is the end.
Both writings of the method are a `Grid`; each sampler turns a grid into a `StepTable`.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from diffood.errors import UsageError

Convention = Literal["textbook", "reference"]
Sampler = Literal["ddim", "pndm2", "pndm4"]
Prediction = Literal["epsilon", "sample", "v_prediction"]

NO_REGISTER = -1


@dataclass(frozen=True)
class StepTable:
    """The denoising of one start time: S rows over H registers of earlier noise predictions.

    Row s asks the UNet at times[s] and, with (p_x, p_m, c_x, c_eps) = coefficients[s] and model output m, does
    eps = p_x·x + p_m·m, then x' = c_x·x + c_eps·eps + sum over h of weights[s, h]·register[h], and last puts eps
    into register store[s] (NO_REGISTER: nowhere).

    Shapes: times float32 [S], coefficients float32 [S, 4], weights float32 [S, H], store int64 [S].
    A start is noised as noise_scale[0]·x + noise_scale[1]·eps.
    """

    noise_scale: tuple[float, float]
    times: npt.NDArray[np.float32]
    coefficients: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    store: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True)
class Grid:
    """Noise levels and the times a UNet is asked at, for one convention.

    Textbook: asked at p, ends on the clean image. Reference (the paper's code): asked at p - 1, ends at alpha_bar[0].
    """

    alpha_bar: npt.NDArray[np.float64]
    convention: Convention

    def level(self, position: float) -> float:
        """alpha_bar at a position; positions between two indices take the lower one, as the paper's code does."""
        if position == 0 and self.convention == "textbook":
            return 1.0
        return float(self.alpha_bar[math.floor(position)])

    def asked(self, position: float) -> float:
        """The time the UNet is asked at."""
        return position if self.convention == "textbook" else position - 1

    def origin_scale(self) -> tuple[float, float]:
        """(scale of x, scale of noise) of the image that x̂ is compared with: clean, or noised at index 0."""
        return noise_scale(self.level(0))


def noise_scale(alpha_bar: float) -> tuple[float, float]:
    """(sqrt(alpha_bar), sqrt(1 - alpha_bar)): Ho et al. 2020, eq. 4."""
    return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)


def ddim_coefficients(alpha_bar: float, alpha_bar_next: float) -> tuple[float, float]:
    """Coefficients (c_x, c_eps) of one deterministic DDIM step, x' = c_x·x + c_eps·eps.

    Song et al. 2021, eq. 12 with sigma = 0. Both arguments in (0, 1]; alpha_bar_next >= alpha_bar denoises.
    """
    c_x = math.sqrt(alpha_bar_next / alpha_bar)
    return c_x, math.sqrt(1 - alpha_bar_next) - c_x * math.sqrt(1 - alpha_bar)


def epsilon_coefficients(prediction: Prediction, alpha_bar: float) -> tuple[float, float]:
    """(p_x, p_m) with eps = p_x·x + p_m·m for a model output m at level alpha_bar in (0, 1).

    v-prediction: Salimans & Ho 2022, appendix D.
    """
    signal, noise = noise_scale(alpha_bar)
    if prediction == "sample":
        return 1 / noise, -signal / noise
    if prediction == "v_prediction":
        return noise, signal
    return 0.0, 1.0


@dataclass
class _Rows:
    """Collects the rows of one table; what the samplers below write into."""

    grid: Grid
    prediction: Prediction
    registers: int
    times: list[float] = field(default_factory=list)
    coefficients: list[tuple[float, float, float, float]] = field(default_factory=list)
    weights: list[list[float]] = field(default_factory=list)
    store: list[int] = field(default_factory=list)

    def step(self, here: float, there: float) -> tuple[float, float]:
        return ddim_coefficients(self.grid.level(here), self.grid.level(there))

    def stage(self, here: float, there: float) -> tuple[float, float]:
        """Like step, to a place where the UNet is asked: it never saw less noise than index 0's."""
        return ddim_coefficients(self.grid.level(here), self.asked_level(there))

    def asked_level(self, position: float) -> float:
        return min(self.grid.level(position), float(self.grid.alpha_bar[0]))

    def add(
        self,
        asked: float,
        c_x: float,
        c_eps: float,
        weights: dict[int, float] | None = None,
        store: int = NO_REGISTER,
    ) -> None:
        row = [0.0] * self.registers
        for register, weight in (weights or {}).items():
            row[register] = weight
        self.times.append(self.grid.asked(asked))
        self.coefficients.append((*epsilon_coefficients(self.prediction, self.asked_level(asked)), c_x, c_eps))
        self.weights.append(row)
        self.store.append(store)


def _ddim(rows: _Rows, nodes: Sequence[int]) -> None:
    for here, there in itertools.pairwise(nodes):
        rows.add(here, *rows.step(here, there))


def _pndm2(rows: _Rows, nodes: Sequence[int]) -> None:
    """Improved Euler once, then eps = (3·e0 - e1) / 2 (Liu et al. 2022, PNDM). Register 0: the previous step's e."""
    stage_x, stage_eps = rows.stage(nodes[0], nodes[1])
    c_x, c_eps = rows.step(nodes[0], nodes[1])
    rows.add(nodes[0], stage_x, stage_eps, store=0)
    # x2 = stage_x·x + stage_eps·e1 is at hand, x no more: x = (x2 - stage_eps·e1) / stage_x.
    back = c_x / stage_x
    rows.add(nodes[1], back, c_eps / 2, {0: c_eps / 2 - back * stage_eps})
    for here, there in itertools.pairwise(nodes[1:]):
        c_x, c_eps = rows.step(here, there)
        rows.add(here, c_x, 1.5 * c_eps, {0: -0.5 * c_eps}, store=0)


def _runge_kutta(rows: _Rows, here: int, there: int, first: int) -> None:
    """Four rows of the classical method; register `first` gets e1, registers 3 and 4 hold e2 and e3.

    Each stage starts from the x of stage one, which is the current x less what the last stage added.
    """
    middle = (here + there) / 2
    mid_x, mid_eps = rows.stage(here, middle)
    far_x, far_eps = rows.stage(here, there)
    c_x, c_eps = rows.step(here, there)
    rows.add(here, mid_x, mid_eps, store=first)
    rows.add(middle, 1.0, mid_eps, {first: -mid_eps}, store=3)
    rows.add(middle, far_x / mid_x, far_eps, {3: -mid_eps * far_x / mid_x}, store=4)
    back = c_x / far_x
    rows.add(there, back, c_eps / 6, {first: c_eps / 6, 3: c_eps / 3, 4: c_eps / 3 - back * far_eps})


def _pndm4(rows: _Rows, nodes: Sequence[int]) -> None:
    """Three Runge-Kutta steps, then Adams-Bashforth of order four. Registers 0..2 hold each step's first e, in turn."""
    for number, (here, there) in enumerate(itertools.pairwise(nodes)):
        newest = number % 3
        if number < 3:
            _runge_kutta(rows, here, there, newest)
            continue
        c_x, c_eps = rows.step(here, there)
        e1, e2, e3 = (number - 1) % 3, (number - 2) % 3, newest
        weights = {e1: -59 / 24 * c_eps, e2: 37 / 24 * c_eps, e3: -9 / 24 * c_eps}
        rows.add(here, c_x, 55 / 24 * c_eps, weights, store=newest)


_SAMPLERS: dict[Sampler, tuple[int, Callable[[_Rows, Sequence[int]], None]]] = {
    "ddim": (0, _ddim),
    "pndm2": (1, _pndm2),
    "pndm4": (5, _pndm4),
}


def build_table(grid: Grid, sampler: Sampler, prediction: Prediction, start: int, stride: int) -> StepTable:
    """Build the table from position `start` to the end in steps of `stride`; the last step may be shorter.

    Raises UsageError where start or stride lie outside the training schedule.
    """
    last = len(grid.alpha_bar) - 1
    if not 1 <= start <= last:
        raise UsageError(f"Start time {start} is outside 1..{last}, the UNet's training schedule: choose one inside.")
    if not 1 <= stride <= last:
        raise UsageError(f"Stride {stride} is outside 1..{last}, the UNet's training schedule: choose one inside.")
    registers, write = _SAMPLERS[sampler]
    rows = _Rows(grid, prediction, registers)
    write(rows, [*range(start, 0, -stride), 0])
    return StepTable(
        noise_scale=noise_scale(grid.level(start)),
        times=np.array(rows.times, np.float32),
        coefficients=np.array(rows.coefficients, np.float32),
        weights=np.array(rows.weights, np.float32).reshape(len(rows.times), registers),
        store=np.array(rows.store, np.int64),
    )
