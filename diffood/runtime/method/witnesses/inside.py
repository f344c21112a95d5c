"""How far what a network computes inside is from what it computes for known images: the classifier, and the UNet.

Near its input a classifier sees textures and strokes that its features, made for its own classes, have forgotten. A
UNet that takes noise off an image has looked at all of it (CFS, arXiv 2605.11014, looks at one encoder's and one
decoder's activations; here at what its decoder has of each size, by class).
"""

import numpy as np

from diffood.runtime.method.mahalanobis import fit_gaussians
from diffood.runtime.method.scoring import Array, Float, unit
from diffood.runtime.method.witnesses import definition
from diffood.runtime.method.witnesses.definition import BankComparison, Reference, WitnessDefinition
from diffood.runtime.method.witnesses.jump import unit as unit_rows
from diffood.runtime.onnx.builder import Value

AXES = {"means": "KD", "axes": "DA", "centres": "KA", "precisions": "A", "across": ""}


def nearest_class(reference: Reference, vector: Array, logits: Array) -> float:
    """Distance of a vector [D] from the nearest class mean, in standard deviations; logits are not looked at."""
    x = unit(vector).astype(np.float32)
    along, off = x @ reference["axes"] - reference["centres"], x - reference["means"]
    within = (along * along * (reference["precisions"] - reference["across"])).sum(axis=1)
    squares = within + (off * off).sum(axis=1) * reference["across"]
    return float(np.sqrt(np.maximum(0, squares.min())))  # Python's max would make NaN a distance of 0


def fit_classes(vectors: Array, logits: Array) -> tuple[Reference, Float]:
    """Gaussians of vectors [N, D] by predicted class, and the distance [N] of each from those of the others."""
    fitted = fit_gaussians(vectors, logits.argmax(axis=1))
    found = fitted.gaussians
    arrays = {"means": found.means, "axes": found.axes, "precisions": found.precisions}
    centres = (found.means.astype(np.float64) @ found.axes).astype(np.float32)
    return {**arrays, "centres": centres, "across": np.array(found.across, np.float32)}, fitted.own


def _write(reference: Reference, vectors: Value, logits: Value) -> Value:
    builder = vectors.builder
    width = reference["means"].shape[1]
    across = float(reference["across"])
    x = unit_rows(vectors, width)
    along = (x @ builder.constant(reference["axes"])).reshape(-1, 1, len(reference["precisions"]))
    along = along - builder.constant(reference["centres"][None])
    within = (along * along * builder.constant(reference["precisions"] - reference["across"])).reduce("ReduceSum", 2)
    off = x.reshape(-1, 1, width) - builder.constant(reference["means"][None])
    squares = within + (off * off).reduce("ReduceSum", 2) * across
    return builder.node("Sqrt", builder.node("Max", squares.reduce("ReduceMin", 1), 0.0))


INSIDE = WitnessDefinition(
    "inside",
    "How far what the classifier computes inside is from what it computes for known images.",
    comparison=BankComparison(definition.INSIDE, AXES, fit_classes, nearest_class, _write),
)
SNAPSHOT = WitnessDefinition(
    "snapshot",
    "How far what the UNet computes inside, in one evaluation, is from what it computes for known images.",
    comparison=BankComparison(definition.SNAPSHOT, AXES, fit_classes, nearest_class, _write),
)
