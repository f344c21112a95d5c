"""Noise pool-1 in a graph: a window of the pool at an offset that the pixels decide, in int32."""

import math

import numpy as np

from diffood.runtime.assembly.recipe import Recipe, Stage
from diffood.runtime.method.noise_pool import OFFSETS
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import Value


def draw_noise(image: Value, recipe: Recipe, stage: Stage) -> Value:
    """Noise [R, B, c, h, w] of a stage's repeats of images uint8 [B, C, H, W], equal to NoisePool.draw's."""
    builder, pool, size = image.builder, recipe.pool, math.prod(recipe.row)
    assert pool is not None
    pixels = image.cast(messages.INT32).reshape(1, -1, pool.factors.shape[1])
    weighted = builder.node("Mul", pixels, builder.constant(pool.factors[stage.first : stage.last, None, :]))
    total = weighted.reduce("ReduceSum", 2, keep=True)  # [R, B, 1], from 0 to below 2**31
    window = builder.constant(np.array(OFFSETS, np.int32))
    whole = builder.node("Div", total, window)  # Mod is not in every engine
    offset = builder.node("Sub", total, builder.node("Mul", whole, window))
    places = builder.node("Add", offset, builder.constant(np.arange(size, dtype=np.int32)))
    values = builder.constant(pool.values[: OFFSETS + size].astype(np.float16)).cast(messages.FLOAT)
    return builder.node("Gather", values, places, axis=0).reshape(stage.repeats, -1, *recipe.row)
