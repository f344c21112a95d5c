"""Noise pool-1 in a graph: a window of the pool at an offset that the pixels decide.

Engines differ in the integers that they multiply and add: some have no int64, OpenVINO adds int32 as float32. So the
offset is found in float32, by steps that are exact in it: no sum of whole numbers here reaches 2**24.

    offset = sum of factor·pixel mod 2**20,  factor = low + 2**10·high,  low, high < 2**10
    sums of 64 products < 64·255·2**10 < 2**24, taken mod 2**20; then sums of 16 such remainders, and so on
"""

import math

import numpy as np

from diffood.runtime.assembly.recipe import Recipe, Stage
from diffood.runtime.method.noise import OFFSETS
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import Value, fill_rows

HALF = 2**10  # its square is OFFSETS
PRODUCTS, REMAINDERS = 64, 16  # added at once


def draw_noise(image: Value, recipe: Recipe, stage: Stage) -> Value:
    """Noise [R, B, c, h, w] of a stage's repeats of images uint8 [B, C, H, W], equal to NoisePool.draw's."""
    builder, pool, size = image.builder, recipe.pool, math.prod(recipe.row)
    assert pool is not None
    pixels = image.cast(messages.FLOAT).reshape(1, -1, math.prod(recipe.image))
    factors = pool.factors[stage.first : stage.last, None, :]
    low, high = (
        _sum_modulo(pixels * builder.constant(part.astype(np.float32)), stage.repeats, math.prod(recipe.image))
        for part in (factors % HALF, factors // HALF)
    )
    offset = _modulo(low + _modulo(high * float(HALF)))  # [R, B, 1]; high·2**10 < 2**30 has its last ten bits zero
    places = builder.node("Add", offset.cast(messages.INT32), builder.constant(np.arange(size, dtype=np.int32)))
    values = builder.constant(pool.values[: OFFSETS + size].astype(np.float16)).cast(messages.FLOAT)
    return builder.node("Gather", values, places, axis=0).reshape(stage.repeats, -1, *recipe.row)


def _sum_modulo(products: Value, repeats: int, count: int) -> Value:
    """The sum [R, B, 1] of products [R, B, count], modulo OFFSETS."""
    total, at_once = products, PRODUCTS
    while count > 1:
        filled, count = fill_rows(total, count, at_once), -(-count // at_once)
        total = _modulo(filled.reshape(repeats, -1, count, at_once).reduce("ReduceSum", 3))
        at_once = REMAINDERS
    return total


def _modulo(value: Value) -> Value:
    """The remainder of whole numbers by OFFSETS: exact, since a power of two only moves the exponent."""
    whole = value.builder.node("Floor", value * (1 / OFFSETS))
    return value - whole * float(OFFSETS)
