"""What the classifier's logits say, without any denoised image."""

import numpy as np

from diffood.runtime.method.scoring import Array
from diffood.runtime.method.witnesses.definition import Traces, WitnessDefinition
from diffood.runtime.onnx.builder import Value


def logit_norm(logits: Array) -> float:
    """Minus the length of the logits [K] about their mean: flat logits, whatever their height, are suspicious."""
    wide = logits.astype(np.float64)
    return -float(np.linalg.norm(wide - wide.mean()))


def energy(logits: Array) -> float:
    """Minus the log of the summed exponentials of the logits [K] (Liu et al. 2020, arXiv 2010.03759, eq. 4, T = 1)."""
    return -float(np.logaddexp.reduce(logits.astype(np.float64)))


def _norm(traces: Traces) -> Value:
    return -(traces.logits - traces.logits.reduce("ReduceMean", 1, keep=True)).reduce("ReduceL2", 1)


def _energy(traces: Traces) -> Value:
    return -traces.logits.reduce("ReduceLogSumExp", 1)


def _largest(traces: Traces) -> Value:
    return -traces.logits.reduce("ReduceMax", 1)


def _probability(traces: Traces) -> Value:
    builder = traces.logits.builder
    return -builder.node("Softmax", traces.logits, axis=1).reduce("ReduceMax", 1)


LOGIT_NORM = WitnessDefinition(
    "logit_norm",
    "How flat the classifier's outputs are: no class stands out.",
    lambda evidence, bank: logit_norm(evidence.logits),
    of_image=_norm,
)
ENERGY = WitnessDefinition(
    "energy",
    "How low the classifier's outputs are taken together: no class is well supported.",
    lambda evidence, bank: energy(evidence.logits),
    of_image=_energy,
)
MAX_LOGIT = WitnessDefinition(
    "max_logit",
    "How low the classifier's highest output is.",
    lambda evidence, bank: -float(evidence.logits.max()),
    of_image=_largest,
)
MSP = WitnessDefinition(
    "msp",
    "How unsure the classifier is: how small its largest probability is.",
    lambda evidence, bank: -evidence.confidence,
    of_image=_probability,
)
