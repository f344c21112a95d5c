"""What sessions do on the host: padding to the fixed batch, and the registers of multistep samplers. No engine."""

from collections.abc import Callable, Sequence

import numpy as np

from diffood.runtime.method.schedule import NO_REGISTER
from diffood.runtime.method.scoring import Array
from diffood.runtime.sessions import StepInputs


def run_padded(x: Array, batch: int, run: Callable[[Array], Sequence[Array]]) -> list[Array]:
    """The outputs [N, ...] of `run` for images or latents [N, C, H, W], `batch` rows per call.

    The last call is padded with zeros, whose rows are dropped: an engine sees one shape only.
    """
    parts = []
    for start in range(0, max(1, len(x)), batch):
        rows = x[start : start + batch]
        padded = np.zeros((batch, *x.shape[1:]), np.float32)
        padded[: len(rows)] = rows
        parts.append([output[: len(rows)] for output in run(padded)])
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def combine_registers(x: Array, registers: Array, inputs: StepInputs, epsilon: Array) -> None:
    """Add the registers' part of a multistep update to x, then store this step's epsilon if the row says so.

    Changes x [B, C, H, W] and registers [H, B, C, H, W] in place; epsilon is [B, C, H, W].
    """
    for register, weight in zip(registers, inputs.weights.T, strict=True):
        x += weight[:, None, None, None] * register
    for lane, register in enumerate(inputs.store):
        if register != NO_REGISTER:
            registers[register, lane] = epsilon[lane]
