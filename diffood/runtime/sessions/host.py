"""The host's share of a session's work: padding to the fixed batch, and multistep samplers' registers. No engine."""

from collections.abc import Callable, Sequence

import numpy as np

from diffood.runtime.method.schedule import NO_REGISTER
from diffood.runtime.method.scoring import Array
from diffood.runtime.sessions import StepInputs


def run_padded(x: Array, batch: int, run: Callable[[Array], Sequence[Array]]) -> list[Array]:
    """The outputs [N, ...] for images or latents [N, C, H, W], `batch` rows a call; `run` maps [B, C, H, W] to them.

    The last call is filled up with zeros and their rows are dropped: an engine sees one shape only.
    """
    parts = []
    for start in range(0, max(1, len(x)), batch):
        rows = x[start : start + batch]
        padded = np.zeros((batch, *x.shape[1:]), np.float32)
        padded[: len(rows)] = rows
        parts.append([output[: len(rows)] for output in run(padded)])
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def combine_registers(x: Array, registers: Array, inputs: StepInputs, epsilon: Array) -> None:
    """Add the registers' share of a multistep update to x, then keep this step's epsilon where the row says so.

    In place: x [B, C, H, W], registers [H, B, C, H, W]; epsilon [B, C, H, W].
    """
    for register, weight in zip(registers, inputs.weights.T, strict=True):
        x += weight[:, None, None, None] * register
    for lane, register in enumerate(inputs.store):
        if register != NO_REGISTER:
            registers[register, lane] = epsilon[lane]
