"""One stage of a plan as one graph: images in, what the classifier says of them and of the denoised ones out.

    image uint8 [B, C, H, W]
      -> x = image / 127.5 - 1 -> classify -> logits, features, label
      -> noise of the pixels -> a block of rows per start time, with all repeats of all images
      -> steps -> x̂, clamped -> classify
      -> how far every denoised image is, [B, R, T] for each witness

With an autoencoder, latents are noised and denoised in place of images.
"""

from dataclasses import replace

import numpy as np

from diffood.runtime.assembly.noise import draw_noise
from diffood.runtime.assembly.pooling import pool_maps
from diffood.runtime.assembly.recipe import Recipe, Stage
from diffood.runtime.assembly.steps import StepSettings, denoise, noised
from diffood.runtime.method.witnesses.definition import FEATURES, INSIDE, SNAPSHOT, Traces
from diffood.runtime.method.witnesses.registry import WITNESSES, classify_denoised
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import GraphBuilder, Value

IMAGE, LOGITS, DENOISED, SOUND = "image", "logits", "denoised", "sound"
LARGEST = float(np.finfo(np.float32).max)
BATCH = "batch"  # the dimension that is free


def build_stage(recipe: Recipe, stage: Stage) -> bytes:
    """The model of a stage.

    Inputs: image uint8 [B, C, H, W]; logits [B, K] and features [B, D] as well if it does not classify.
    Outputs: logits, features and the vector inside, see Evidence, if it does; if it denoises, sound [B, R, T], 1 where
    all values of a denoised image are finite before it is clamped, and, by name, what the plan's witnesses say of each,
    [B, R, T]; denoised [B, C, H, W] and the vector snapshot, see Evidence, if its first repeat is the plan's.
    """
    builder = GraphBuilder()
    image = builder.input(IMAGE, messages.UINT8, (BATCH, *recipe.image))
    logits_shape, features_shape = (BATCH, recipe.classes), (BATCH, recipe.features)
    if stage.classifies:
        traces = classify_images(recipe, image)
        builder.output(LOGITS, traces.logits, messages.FLOAT, logits_shape)
        builder.output(FEATURES, traces.features, messages.FLOAT, features_shape)
        output_inner(recipe, traces, INSIDE)
    else:
        logits = builder.input(LOGITS, messages.FLOAT, logits_shape)
        features = builder.input(FEATURES, messages.FLOAT, features_shape)
        traces = _traces(recipe, from_pixels(image), logits, features)
    if stage.repeats:
        traces = denoise_images(recipe, stage, image, traces)
        assert traces.sound is not None
        if not stage.first:
            output_denoised(recipe, traces)
            output_inner(recipe, traces, SNAPSHOT)
        shape = (BATCH, stage.repeats, len(recipe.tables))
        builder.output(SOUND, traces.sound.transpose(2, 1, 0), messages.FLOAT, shape)
        for name in recipe.plan.witnesses:
            if write := WITNESSES[name].of_denoised:
                builder.output(name, write(traces).transpose(2, 1, 0), messages.FLOAT, shape)
    return builder.serialise(recipe.parts.domains)


def output_denoised(recipe: Recipe, traces: Traces) -> None:
    """Give out the images denoised from the largest start time with the first noise, [B, C, H, W]."""
    assert traces.denoised is not None
    builder, last = traces.x.builder, len(recipe.tables) - 1
    of_largest = builder.node("Gather", traces.denoised, builder.constant(np.array(last)), axis=0)
    first = builder.node("Gather", of_largest, builder.constant(np.array(0)), axis=0)
    builder.output(DENOISED, first, messages.FLOAT, (BATCH, *recipe.image))


def output_inner(recipe: Recipe, traces: Traces, vector: str) -> None:
    """Give out a vector from inside the networks, [B, L], where the plan compares it."""
    if vector in traces.inner:
        found = traces.inner[vector]
        found.builder.output(vector, found, messages.FLOAT, (BATCH, recipe.width(vector)))


def from_pixels(image: Value) -> Value:
    """What the models take, float32 in [-1, 1], of pixels uint8."""
    return image.cast(messages.FLOAT) / 127.5 - 1.0


def classify_images(recipe: Recipe, image: Value) -> Traces:
    """What the classifier says of images."""
    x = from_pixels(image)
    inside = recipe.inner.get(INSIDE, ())
    found = recipe.parts.classify(image.builder, {"x": x}, [inner.name for inner in inside])
    traces = _traces(recipe, x, found[LOGITS], found[FEATURES])
    return replace(traces, inner={INSIDE: pool_maps(inside, found)}) if inside else traces


def _traces(recipe: Recipe, x: Value, logits: Value, features: Value) -> Traces:
    plan = recipe.plan
    width = recipe.classes if plan.space == LOGITS else recipe.features
    return Traces(recipe.image, plan.norm, plan.compare, width, x, logits, features)


def denoise_images(recipe: Recipe, stage: Stage, image: Value, traces: Traces) -> Traces:
    """Add the denoised images of a stage, and what the classifier says of them if a witness asks for it."""
    parts, plan, builder, repeats = recipe.parts, recipe.plan, image.builder, stage.repeats
    z = parts.encode(builder, {"x": traces.x})["z"] if parts.encode else traces.x
    noise = draw_noise(image, recipe, stage)
    label = builder.node("ArgMax", traces.logits, axis=1, keepdims=0)
    assert parts.step is not None
    snapshot = recipe.inner.get(SNAPSHOT, ())
    inner = tuple(found.name for found in snapshot)
    how = StepSettings(parts.step, plan.guidance, builder.concat([label] * repeats), recipe.row, inner)
    found = denoise(how, recipe.tables, z, noise)
    decoded = [_decode(recipe, rows) for rows in found.ends]
    ends = [_clamp(rows) for rows in decoded]
    denoised = builder.concat([end.reshape(1, repeats, -1, *recipe.image) for end in ends])
    sound = builder.concat([all_finite(rows, 1, 2, 3).reshape(1, repeats, -1) for rows in decoded])
    traces = replace(traces, denoised=denoised, sound=sound)
    if snapshot:
        pooled = pool_maps(snapshot, found.inner).reshape(repeats, -1, recipe.width(SNAPSHOT))
        first = builder.node("Gather", pooled, builder.constant(np.array(0)), axis=0)
        traces = replace(traces, inner={**traces.inner, SNAPSHOT: first})
    if not classify_denoised(plan.witnesses):
        return traces

    def classify(rows: Value, blocks: int) -> Value:
        return parts.classify(builder, {"x": rows})[plan.space].reshape(blocks, repeats, -1, traces.width)

    if recipe.own_origin:
        origin = classify(_clamp(_decode(recipe, noised(z, noise, recipe.origin_scale, recipe.row))), 1)
    else:
        once = traces.logits if plan.space == LOGITS else traces.features
        origin = builder.node("Unsqueeze", once, builder.integers([0, 1]))
    return replace(traces, origin=origin, after=classify(builder.concat(ends), len(ends)))


def _decode(recipe: Recipe, rows: Value) -> Value:
    """Denoised rows as images: decoded where they are latents."""
    decode = recipe.parts.decode
    return decode(rows.builder, {"z": rows})["x"] if decode else rows


def _clamp(rows: Value) -> Value:
    return rows.builder.node("Clip", rows, -1.0, 1.0)


def all_finite(rows: Value, *axes: int) -> Value:
    """1 where all values over these axes are finite, else 0: what is clamped hides infinities, on GPUs NaN."""
    finite = rows.builder.node("LessOrEqual", rows.builder.node("Abs", rows), LARGEST)  # false for NaN
    return finite.cast(messages.FLOAT).reduce("ReduceMin", *axes)
