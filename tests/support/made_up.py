"""A calibration of made-up scores and models, for tests of what is done with one; nothing was calibrated."""

from typing import Any

from diffood.runtime.bundle.calibration import Calibration, Fingerprint
from diffood.runtime.bundle.guarantees import describe_promise
from diffood.runtime.images.decode import ImageShape
from diffood.runtime.method.plan import Plan

PLAN = Plan(start_times=(100,), stride=50, repeats=1, guidance=0.0)


def fingerprint_of(plan: Plan = PLAN, **changes: Any) -> Fingerprint:
    """A fingerprint of models that do not exist; `changes` are fields of it."""
    fields: dict[str, Any] = {
        "classify_sha256": "a" * 64,
        "step_sha256": "b" * 64,
        "noise_levels_sha256": "c" * 64,
        "precision": "fp32",
        "backend": "onnxruntime-cpu",
        "image": ImageShape(1, 28, 28),
        "noised": (1, 28, 28),
        "prediction": "epsilon",
        "feature_count": 192,
        "class_names_sha256": "d" * 64,
        "plan": plan,
    }
    return Fingerprint(**fields | changes)


def calibration_of(scores: list[float], threshold: float, **changes: Any) -> Calibration:
    """A calibration without a guarantee on sorted scores; `changes` are fields of it.

    It is true where the threshold is one of the scores, and no other is equal.
    """
    n, above = len(scores), sum(score > threshold for score in scores)
    alpha = changes.get("alpha", min((above + 0.5) / n, 0.99))
    fields: dict[str, Any] = {
        "method": "quantile",
        "alpha": alpha,
        "delta": None,
        "n": n,
        "allowed_above": above,
        "threshold": threshold,
        "guarantee": describe_promise("quantile", alpha, None, n, above / n),
        "set_aside": 0,
        "fingerprint": fingerprint_of(),
        "scores": scores,
    }
    return Calibration(**fields | changes)
