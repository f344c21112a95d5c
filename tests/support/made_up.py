"""A calibration of made-up scores and models, for tests of what is done with one; nothing was calibrated."""

from typing import Any

from diffood.runtime.bundle.calibration import Calibration, Fingerprint
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
        "plan": plan,
    }
    return Fingerprint(**fields | changes)


def calibration_of(scores: list[float], threshold: float, **changes: Any) -> Calibration:
    """A calibration without a guarantee on sorted scores; `changes` are fields of it."""
    fields: dict[str, Any] = {
        "method": "quantile",
        "alpha": 0.05,
        "delta": None,
        "n": len(scores),
        "allowed_above": sum(score > threshold for score in scores),
        "threshold": threshold,
        "guarantee": "none, the scores are made up",
        "set_aside": 0,
        "fingerprint": fingerprint_of(),
        "scores": scores,
    }
    return Calibration(**fields | changes)
