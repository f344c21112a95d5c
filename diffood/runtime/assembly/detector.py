"""The whole detector as one graph, for runtimes other than ours: images in, verdicts out once it is calibrated.

image uint8 [B, C, H, W] -> a stage of all repeats -> witnesses after each of the plan's stages
  -> without a calibration: they are the outputs
  -> with one: score, p_value, threshold, is_ood, stage
  -> predicted_class, confidence, denoised, heat_map
"""

from dataclasses import dataclass

from diffood.runtime.assembly.recipe import Recipe, Stage
from diffood.runtime.assembly.stage import (
    BATCH,
    IMAGE,
    LOGITS,
    SOUND,
    all_finite,
    classify_images,
    denoise_images,
    output_denoised,
    output_inner,
)
from diffood.runtime.assembly.tail import MeasuredStage, judge
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.method.witnesses.definition import FEATURES, Traces
from diffood.runtime.method.witnesses.reconstruction import blurred_difference
from diffood.runtime.method.witnesses.registry import WITNESSES, Bank, measurable, require_width
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import GraphBuilder, Value

PREDICTED, CONFIDENCE, HEAT_MAP = "predicted_class", "confidence", "heat_map"


@dataclass(frozen=True)
class CalibratedScale:
    """What `diffood calibrate` found.

    Attributes:
        calibration: The calibration.
        fusion: What it was fitted with; None for a plan of one witness.
    """

    calibration: Calibration
    fusion: Fusion | None


def build_detector(recipe: Recipe, calibrated: CalibratedScale | None) -> bytes:
    """The model of a plan, with all its stages.

    Input: image uint8 [B, C, H, W]. Outputs: predicted_class int64 [B], confidence [B]; where the plan denoises,
    denoised [B, C, H, W] in [-1, 1] (from the largest start time, with the first noise) and heat_map [B, H, W] (root
    mean square change, blurred);
    with a calibration score (NaN, and flagged, where a value that it came from is not finite), p_value, threshold,
    is_ood bool and stage int64, each [B]; without one logits [B, K], features [B, D], vectors from
    inside, see Evidence, each other witness by name, [B], and
    sound bool [B], whether all that the models gave is finite.
    """
    builder, plan = GraphBuilder(), recipe.plan
    image = builder.input(IMAGE, messages.UINT8, (BATCH, *recipe.image))
    traces = classify_images(recipe, image)
    if plan.denoises:
        traces = denoise_images(recipe, Stage(number=0, first=0, last=plan.repeats), image, traces)
    bank = calibrated.fusion.bank if calibrated and calibrated.fusion else None
    stages = _by_stage(recipe, traces, bank or {})
    predicted = builder.node("ArgMax", traces.logits, axis=1, keepdims=0)
    confidence = builder.node("Softmax", traces.logits, axis=1).reduce("ReduceMax", 1)
    if calibrated is None:
        builder.output(LOGITS, traces.logits, messages.FLOAT, (BATCH, recipe.classes))
        builder.output(FEATURES, traces.features, messages.FLOAT, (BATCH, recipe.features))
        for name in traces.inner:
            output_inner(recipe, traces, name)
        builder.output(SOUND, stages[-1].sound, messages.BOOL, (BATCH,))
        for name, value in stages[-1].values.items():
            builder.output(name, value, messages.FLOAT, (BATCH,))
    else:
        answer = judge(stages, predicted, calibrated.calibration, calibrated.fusion)
        builder.output("score", answer.score, messages.FLOAT, (BATCH,))
        builder.output("p_value", answer.p_value, messages.FLOAT, (BATCH,))
        builder.output("threshold", answer.threshold, messages.FLOAT, (BATCH,))
        builder.output("is_ood", answer.is_ood, messages.BOOL, (BATCH,))
        builder.output("stage", answer.stage, messages.INT64, (BATCH,))
    builder.output(PREDICTED, predicted, messages.INT64, (BATCH,))
    builder.output(CONFIDENCE, confidence, messages.FLOAT, (BATCH,))
    if plan.denoises:
        _output_pictures(recipe, traces)
    return builder.serialise(recipe.parts.domains)


def _by_stage(recipe: Recipe, traces: Traces, bank: Bank) -> list[MeasuredStage]:
    """What there is after each stage of the plan, the last after all repeats."""
    plan, builder = recipe.plan, traces.x.builder
    known, of_denoised = dict[str, Value](), {}
    for name in plan.witnesses:
        if (how := WITNESSES[name].comparison) and name in bank:
            require_width(name, bank[name], recipe.width(how.vector))
            known[name] = how.write(bank[name], traces.vectors[how.vector], traces.logits)
        if write := WITNESSES[name].of_image:
            known[name] = write(traces)
        if write := WITNESSES[name].of_denoised:
            of_denoised[name] = write(traces)  # [T, R, B]
    classified = all_finite(traces.logits, 1) * all_finite(traces.features, 1)
    stages = []
    for repeats in (*plan.stages, plan.repeats):
        sound = classified
        if repeats and traces.sound is not None:
            sound = sound * _first(traces.sound, repeats).reduce("ReduceMin", 0, 1)
            for name, value in of_denoised.items():
                mean = _first(value, repeats).reduce("ReduceMean", 0, 1)
                known[name] = builder.node("Sqrt", mean) if WITNESSES[name].reduce == "root" else mean
        values = {name: known[name] for name in measurable(plan.witnesses, repeats) if name in known}
        stages.append(MeasuredStage(values, builder.node("Greater", sound, 0.0)))
    return stages


def _first(value: Value, repeats: int) -> Value:
    """What [T, R, B] has of the first repeats."""
    return value.builder.node("Slice", value, *map(value.builder.integers, ([0], [repeats], [1])))


def _output_pictures(recipe: Recipe, traces: Traces) -> None:
    builder = traces.x.builder
    output_denoised(recipe, traces)
    blurred = blurred_difference(traces)  # [T, R, B, C, H, W]
    change = builder.node("Sqrt", (blurred * blurred).reduce("ReduceMean", 0, 1, 3))
    builder.output(HEAT_MAP, change, messages.FLOAT, (BATCH, *recipe.image[1:]))
