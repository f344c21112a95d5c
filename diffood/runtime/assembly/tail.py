"""A calibration as the end of a graph: witness values in, score, p-value and verdict out, in float32.

The same as method.fusion and decision do in numpy, for runtimes that know nothing of either.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.method.fusion import FittedWitness
from diffood.runtime.method.plan import Combination
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import GraphBuilder, Value

# erfc(t) = u·exp(-t² + P(u)), u = 1 / (1 + t/2), t >= 0, within 1.2e-7 of its value: Press et al., Numerical Recipes,
# 2nd ed., sec. 6.2 (erfcc). Lowest power first.
_ERFC = (-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223)
_ERFC_LAST = 0.17087277
_TERMS = 8  # of (exp(x) - 1) / x = 1 + x/2! + x²/3! + …, enough for _NEAR in float32
_NEAR = 0.5
_SMALLEST_POWER = 1e-7
_LARGEST_Z = 1e18  # its square is finite in float32
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class MeasuredStage:
    """What a graph has of B images after one of a plan's stages.

    Attributes:
        values: Witness values [B] by name.
        sound: Whether all that the models gave so far is finite, bool [B].
    """

    values: Mapping[str, Value]
    sound: Value


@dataclass(frozen=True)
class Answer:
    """What a calibrated graph says of B images.

    Attributes:
        score: float32 [B].
        p_value: float32 [B].
        threshold: float32 [B].
        is_ood: bool [B].
        stage: At which the image would have ended, from 1: int64 [B].
    """

    score: Value
    p_value: Value
    threshold: Value
    is_ood: Value
    stage: Value


def judge(stages: Sequence[MeasuredStage], predicted: Value, calibration: Calibration, fusion: Fusion | None) -> Answer:
    """Write a calibration.

    Args:
        stages: What there is after each stage, the last after all repeats.
        predicted: Class int64 [B].
        calibration: The calibration.
        fusion: What it was fitted with; None for a plan of one witness.
    """
    builder = predicted.builder
    last = builder.node("Add", builder.node("Mul", predicted, _whole(builder, 0)), _whole(builder, len(stages)))
    if fusion is None:
        (score,) = stages[-1].values.values()
        score, stage = _checked(score, stages[-1]), last
    else:
        score, stage = _staged(stages, fusion, last)
    limit = builder.constant(np.array(_LARGEST, np.float32))
    compared = builder.node("Where", _finite(score), score, limit)  # what is not finite is flagged
    p_value, threshold = _compare(compared, predicted, calibration)
    return Answer(score, p_value, threshold, builder.node("Greater", compared, threshold), stage)


def _whole(builder: GraphBuilder, number: int) -> Value:
    return builder.constant(np.array(number, np.int64))


def _finite(value: Value) -> Value:
    """Whether values are finite: comparisons with NaN are false in every engine."""
    return value.builder.node("Less", value.builder.node("Abs", value), _LARGEST)


def _checked(score: Value, measured: MeasuredStage) -> Value:
    """The score; NaN where a value that it came from is not finite, which a finite score may hide."""
    nan = score.builder.constant(np.array(np.nan, np.float32))
    return score.builder.node("Where", measured.sound, score, nan)


def _staged(stages: Sequence[MeasuredStage], fusion: Fusion, last: Value) -> tuple[Value, Value]:
    """Score and stage of every image: those of the first stage that ends it. last: number of the last stage, [B]."""
    record, builder = fusion.record, last.builder
    score, stage = _checked(fuse(record.witnesses, record.combine, stages[-1].values), stages[-1]), last
    for number, rule in reversed(list(enumerate(record.stages))):
        early = fuse(rule.witnesses, record.combine, stages[number].values)
        low, high = (-np.inf if rule.low is None else rule.low), (np.inf if rule.high is None else rule.high)
        passes = builder.node("LessOrEqual", early, float(low))
        ends = builder.node("Or", passes, builder.node("Greater", early, float(high)))
        score = builder.node("Where", ends, _checked(early, stages[number]), score)
        stage = builder.node("Where", ends, _whole(builder, number + 1), stage)
    return score, stage


def fuse(witnesses: Sequence[FittedWitness], how: Combination, values: Mapping[str, Value]) -> Value:
    """One score [B]: see method.fusion.fuse. NaN where a witness is not finite, since the tail of -inf is 0."""
    parts, finite = [], []
    for witness in witnesses:
        z = standardise(witness, values[witness.name])
        parts.append((minus_log_tail(z) if how == "tail" else z) * witness.weight)
        finite.append(_finite(values[witness.name]))
    builder = parts[0].builder
    score = reduce(lambda one, other: one + other, parts)
    sound = reduce(lambda one, other: builder.node("And", one, other), finite)
    return builder.node("Where", sound, score, builder.constant(np.array(np.nan, np.float32)))


def standardise(witness: FittedWitness, value: Value) -> Value:
    """Values [B] in standard deviations above the in-distribution mean, after the transformation."""
    bent = bend((value - witness.center) / witness.scale, witness.power)
    return (bent - witness.center_bent) / witness.scale_bent


def bend(value: Value, power: float) -> Value:
    """Yeo and Johnson's transformation: see method.fusion.bend."""
    builder = value.builder
    if power == 1:
        return value
    above, below = builder.node("Max", value, 0.0), builder.node("Max", -value, 0.0)
    return _box_cox(above, power) - _box_cox(below, 2 - power)


def _box_cox(value: Value, power: float) -> Value:
    """((1 + v)^power - 1) / power for v >= 0; log(1 + v) at power 0, and near it by a series, since 1 would cancel."""
    builder = value.builder
    log = builder.node("Log", value + 1.0)
    if power < _SMALLEST_POWER:
        return log
    exponent = log * power
    series = exponent * (1 / math.factorial(_TERMS + 1))
    for order in reversed(range(2, _TERMS + 1)):
        series = (series + 1 / math.factorial(order)) * exponent
    near = log * (series + 1.0)
    far = (builder.node("Exp", exponent) - 1.0) / power
    return builder.node("Where", builder.node("Less", exponent, _NEAR), near, far)


def minus_log_tail(z: Value) -> Value:
    """-log P(Z > z) for Z standard normal, within 1e-6 of max(1, it) for every z that float32 has."""
    builder = z.builder
    t = builder.node("Min", builder.node("Abs", z), _LARGEST_Z) * (0.5**0.5)
    u = builder.node("Reciprocal", t * 0.5 + 1.0)
    series = u * _ERFC_LAST
    for coefficient in reversed(_ERFC[1:]):
        series = (series + coefficient) * u
    log_half_erfc = series + (_ERFC[0] - float(np.log(2))) + builder.node("Log", u) - t * t
    below = -builder.node("Log", -builder.node("Exp", log_half_erfc) + 1.0)
    return builder.node("Where", builder.node("Greater", z, 0.0), -log_half_erfc, below)


def _compare(score: Value, predicted: Value, calibration: Calibration) -> tuple[Value, Value]:
    """p-value and threshold [B]: of the predicted class where it has its own, of all images otherwise."""
    builder, own, per_class = score.builder, calibration.own_thresholds, calibration.per_class
    known = builder.constant(np.array(calibration.scores, np.float32)[None])
    counts = builder.node("GreaterOrEqual", known, score.reshape(-1, 1))  # [B, n]
    last = max(own, default=0) + 1  # stands for all classes without a threshold of their own
    thresholds, sizes = (
        np.full(last + 1, calibration.threshold, np.float32),
        np.full(last + 1, calibration.n, np.float32),
    )
    if per_class:
        place = builder.node("Min", predicted, _whole(builder, last))
        classes = np.array(per_class.classes)
        for k, limit in own.items():
            thresholds[k], sizes[k] = limit, (classes == k).sum()
        shared = builder.constant(np.array([k not in own for k in range(last + 1)]))
        same = builder.node("Equal", builder.constant(classes[None]), predicted.reshape(-1, 1))
        everyone = builder.node("Gather", shared, place, axis=0).reshape(-1, 1)
        counts = builder.node("And", counts, builder.node("Or", same, everyone))
    else:
        place = builder.node("Mul", predicted, _whole(builder, 0))
    above = counts.cast(messages.FLOAT).reduce("ReduceSum", 1)
    threshold, size = (builder.node("Gather", builder.constant(table), place, axis=0) for table in (thresholds, sizes))
    return (above + 1.0) / (size + 1.0), threshold
