"""The steps of a plan, written out where there is one, as a loop where there are several; all starts in lockstep.

A block of rows per start time. All blocks end with the last step; a start with fewer steps joins where as many are
left. With starts 360, 240 and 120 and stride 120 the UNet is called three times, with the blocks of

    360
    360  240
    360  240  120
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffood.runtime.assembly.recipe import Planes
from diffood.runtime.method.schedule import StepTable
from diffood.runtime.method.scoring import Array
from diffood.runtime.onnx.builder import GraphBuilder, Value
from diffood.runtime.onnx.parts import Part


@dataclass(frozen=True)
class StepSettings:
    """What all steps have in common.

    Attributes:
        step: One step of every row, as a graph.
        guidance: The plan's.
        labels: Of a block's rows, int64 [R·B].
        row: (c, h, w) of what is denoised.
        inner: Names of tensors inside the step to give out, where there is one step.
    """

    step: Part
    guidance: float
    labels: Value
    row: Planes
    inner: tuple[str, ...] = ()


@dataclass(frozen=True)
class DenoisedRows:
    """What a pass of the steps gives.

    Attributes:
        ends: Rows [R·B, c, h, w] by start time, in the order of the tables; not clamped.
        inner: Tensors inside the last step by name, [R·B, …]; none where steps are a loop.
    """

    ends: list[Value]
    inner: dict[str, Value]


def denoise(how: StepSettings, tables: Sequence[StepTable], z: Value, noise: Value) -> DenoisedRows:
    """Denoise images, or latents, z [B, c, h, w] with noise [R, B, c, h, w] from every start time."""
    builder = z.builder
    order = sorted(range(len(tables)), key=lambda index: -len(tables[index]))
    registers = tables[0].weights.shape[1]
    state: list[list[Value]] = [[]] * (1 + registers)  # x and each register: one tensor, none before the first block
    inner: dict[str, Value] = {}
    going: list[int] = []  # starts whose blocks are in the state
    while len(going) < len(order):
        left = len(tables[order[len(going)]])
        joining = [index for index in order if len(tables[index]) == left]
        blocks = [noised(z, noise, tables[index].noise_scale, how.row) for index in joining]
        joined = [blocks, *[[block * 0.0 for block in blocks]] * registers]
        begun = [builder.concat([*old, *new]) for old, new in zip(state, joined, strict=True)]
        going += joining
        after = len(tables[order[len(going)]]) if len(going) < len(order) else 0
        segment = _Segment.of([tables[index] for index in going], left, left - after)
        left_over, inner = _run(how, segment, begun)
        state = [[value] for value in left_over]
    ends = _split(state[0][0], len(order), how.row)
    return DenoisedRows([ends[going.index(index)] for index in range(len(tables))], inner)


def noised(z: Value, noise: Value, scale: tuple[float, float], row: Planes) -> Value:
    """Rows [R·B, c, h, w] of scale[0]·z + scale[1]·noise; row: (c, h, w)."""
    return (z * scale[0] + noise * scale[1]).reshape(-1, *row)


def _split(x: Value, blocks: int, row: Planes) -> list[Value]:
    """Blocks of equally many rows."""
    if blocks == 1:
        return [x]
    apart = x.reshape(blocks, -1, *row)
    places = [x.builder.constant(np.array(block, np.int64)) for block in range(blocks)]
    return [x.builder.node("Gather", apart, place, axis=0) for place in places]


@dataclass(frozen=True)
class _Segment:
    """S steps that N blocks do together.

    Attributes:
        times: float32 [S, N].
        coefficients: float32 [S, N, 4].
        weights: float32 [S, N, H].
        stores: Whether a step's epsilon goes into a register, bool [S, N, H].
    """

    times: Array
    coefficients: Array
    weights: Array
    stores: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, tables: Sequence[StepTable], left: int, steps: int) -> "_Segment":
        """Of tables of which `left` rows are left, for so many steps."""
        rows = [slice(len(table) - left, len(table) - left + steps) for table in tables]
        times, coefficients, weights, store = (
            np.stack([getattr(table, name)[row] for table, row in zip(tables, rows, strict=True)], axis=1)
            for name in ("times", "coefficients", "weights", "store")
        )
        return cls(times, coefficients, weights, store[:, :, None] == np.arange(weights.shape[2]))

    @property
    def tables(self) -> tuple[npt.NDArray[np.generic], ...]:
        """All of it, by step."""
        return self.times, self.coefficients, self.weights, self.stores


def _run(how: StepSettings, segment: _Segment, state: list[Value]) -> tuple[list[Value], dict[str, Value]]:
    """The state, x and the registers, after a segment, and what is inside its one step."""
    builder, count = state[0].builder, len(segment.times)
    if count == 1:
        return _step(how, segment, [builder.constant(table[0]) for table in segment.tables], state)
    tables = [builder.constant(table) for table in segment.tables]

    def body(inner: GraphBuilder, number: Value, *given: Value) -> list[Value]:
        return _step(how, segment, [inner.node("Gather", table, number, axis=0) for table in tables], list(given))[0]

    return builder.loop(count, state, ("rows", *how.row), body), {}


def _step(
    how: StepSettings, segment: _Segment, row: list[Value], state: list[Value]
) -> tuple[list[Value], dict[str, Value]]:
    """One step of all rows: x' = c_x·x + c_eps·eps + the registers' part, and eps stored where the row says so."""
    (x, *registers), builder = state, state[0].builder
    times, coefficients, weights, stores = row
    blocks = segment.times.shape[1]
    rows = builder.node("Shape", how.labels)

    def spread(value: Value, width: int) -> Value:
        """[N, width] of blocks as [rows, width]."""
        shape = builder.concat([builder.integers([blocks]), rows, builder.integers([width])])
        return builder.node("Expand", value.reshape(blocks, 1, width), shape).reshape(-1, width)

    def of_register(table: Value, index: int) -> Value:
        """[N, H] of blocks as [rows, 1, 1, 1], for one register."""
        place = builder.constant(np.array([index], np.int64))
        return spread(builder.node("Gather", table, place, axis=1), 1).reshape(-1, 1, 1, 1)

    label = builder.concat([how.labels] * blocks)
    guidance = builder.constant(np.array([how.guidance], np.float32))
    feeds = {
        "x": x,
        "time": spread(times, 1).reshape(-1),
        "label": label,
        "coefficients": spread(coefficients, 4),
        "guidance": builder.node("Expand", guidance, builder.node("Shape", label)),
    }
    found = how.step(builder, feeds, how.inner)
    x, epsilon = found["x_next"], found["epsilon"]
    held = []
    for index, register in enumerate(registers):
        x = x + register * of_register(weights, index)
        held.append(builder.node("Where", of_register(stores, index), epsilon, register))
    return [x, *held], {name: found[name] for name in how.inner}
