"""How clearly the classifier prefers one class, for how far its features are from the usual ones."""

import numpy as np

from diffood.runtime.method.scoring import Array, Float
from diffood.runtime.method.witnesses.definition import FEATURES, BankComparison, Reference, WitnessDefinition
from diffood.runtime.onnx.builder import Value, row_aligned

SMALLEST = 1e-12  # of a distance, so that features at the mean itself divide nothing by 0


def margin(reference: Reference, features: Array, logits: Array) -> float:
    """Minus how far the largest of logits [K] is above their mean, by the distance of features [D] from their mean.

    After Liu and Qin 2024 (fDBD, arXiv 2312.11536), who divide the mean distance to the classifier's decision
    boundaries by the same distance; here without the lengths of its weights, which not every classifier tells.
    """
    return float(_ratio(features.astype(np.float64) - reference["mean"], logits))


def _ratio(off: Float, logits: Array) -> Float:
    wide = logits.astype(np.float64)
    lead = wide.max(axis=-1) - wide.mean(axis=-1)
    return np.asarray(-lead / np.maximum(np.linalg.norm(off, axis=-1), SMALLEST))


def fit_margin(features: Array, logits: Array) -> tuple[Reference, Float]:
    """The mean of features [N, D], and the witness [N] of each with the mean of the others."""
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    others = len(wide) / max(len(wide) - 1, 1)  # x - mean of the others = N / (N - 1) · (x - mean of all)
    return {"mean": mean.astype(np.float32)}, _ratio((wide - mean) * others, logits)


def _write(reference: Reference, features: Value, logits: Value) -> Value:
    builder, width = logits.builder, len(reference["mean"])
    off = row_aligned(features - builder.constant(reference["mean"]), width).reduce("ReduceL2", 1)
    lead = logits.reduce("ReduceMax", 1) - logits.reduce("ReduceMean", 1)
    return -lead / builder.node("Max", off, SMALLEST)


MARGIN = WitnessDefinition(
    "margin",
    "How little the classifier prefers one class, for how far the image's features are from the usual ones.",
    comparison=BankComparison(FEATURES, {"mean": "D"}, fit_margin, margin, _write),
)
