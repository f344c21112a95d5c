"""What the classifier's logits say, without any denoised image."""

import numpy as np
import numpy.typing as npt

from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.definition import Traces, WitnessDefinition
from diffood.runtime.onnx.builder import Value


def logit_norm(logits: npt.NDArray[np.floating]) -> Float:
    """Minus the length [...] of logits [..., K] about their mean: flat logits are suspicious, whatever their height."""
    wide = logits.astype(np.float64)
    return np.asarray(-np.linalg.norm(wide - wide.mean(axis=-1, keepdims=True), axis=-1))


def energy(logits: npt.NDArray[np.floating]) -> Float:
    """Minus the log of the summed exponentials [...] of logits [..., K]: Liu et al. 2020, arXiv 2010.03759, eq. 4."""
    return np.asarray(-np.logaddexp.reduce(logits.astype(np.float64), axis=-1))


def max_logit(logits: npt.NDArray[np.floating]) -> Float:
    """Minus the largest [...] of logits [..., K]."""
    return np.asarray(-logits.max(axis=-1).astype(np.float64))


def msp(logits: npt.NDArray[np.floating]) -> Float:
    """Minus the largest softmax probability [...] of logits [..., K]."""
    wide = logits.astype(np.float64)
    return np.asarray(-1 / np.exp(wide - wide.max(axis=-1, keepdims=True)).sum(axis=-1))


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
    of_logits=logit_norm,
    of_image=_norm,
)
ENERGY = WitnessDefinition(
    "energy",
    "How low the classifier's outputs are taken together: no class is well supported.",
    of_logits=energy,
    of_image=_energy,
)
MAX_LOGIT = WitnessDefinition(
    "max_logit",
    "How low the classifier's highest output is.",
    of_logits=max_logit,
    of_image=_largest,
)
MSP = WitnessDefinition(
    "msp",
    "How unsure the classifier is: how small its largest probability is.",
    of_logits=msp,
    of_image=_probability,
)
