"""Checks a bundle and its sessions before verdicts are compared: hashes, golden values, repeatable scores."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from diffood.runtime.assembly.stage import LOGITS
from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.bundle.engines import list_engines, read_plan
from diffood.runtime.bundle.graphs import list_roles
from diffood.runtime.detector import Detector
from diffood.runtime.golden import (
    REFERENCE,
    GoldenOutputs,
    nearest_plan,
    observe_images,
    observe_reference,
    read_golden,
)
from diffood.runtime.method.witnesses.definition import FEATURES, INSIDE

# An engine adds its own rounding (another order of summation) to the error that the export measured on the CPU.
GOLDEN_SLACK, GOLDEN_FLOOR = 4.0, 2e-3
# What a step rounds off is multiplied on the way to a denoised image: by 1.7 from t = 360, by up to 5 by guidance of 2.
DENOISED_SLACK = 5.0
# Relative change of a score for the same image in another place of a batch, or run. In FP32 on ONNX Runtime's CPU it
# is 0 where channels are a multiple of 16, as in most models: elsewhere images begin at other places of a cache line,
# and the order of a sum depends on that. Other engines may choose an order per run; INT8 rounds what that changes.
REPEAT_LIMITS: dict[Precision, float] = {"fp32": 1e-5, "fp16": 2e-3, "int8": 2e-3}
EXACT = "scores repeat in any order and run"

Outcome = Literal["ok", "failed", "skipped", "noted"]


@dataclass(frozen=True)
class Check:
    """One row of the table of checks.

    Attributes:
        what: The kind of check.
        subject: What was checked.
        outcome: "skipped": it could not be checked. "noted": it differs, and verdicts on real images decide.
        detail: What was found.
    """

    what: str
    subject: str
    outcome: Outcome
    detail: str

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON; `passed` is None where nothing was decided."""
        return asdict(self) | {"passed": {"ok": True, "failed": False}.get(self.outcome)}


def check_files(bundle: Bundle) -> list[Check]:
    """Report the files of the bundle, whose hashes were checked when it was opened, and check those of engines.

    Raises BundleError for a plan file that was changed.
    """
    size = sum(entry.size for entry in bundle.manifest.files.values()) / 1e6
    checks = [Check("hashes", "bundle", "ok", f"{len(bundle.manifest.files)} files, {size:.1f} MB, as exported")]
    for engine in list_engines(bundle):
        total = sum(len(read_plan(engine, stage)) for stage in engine.record.stages)
        detail = f"{len(engine.record.stages)} plan files, {total / 1e6:.1f} MB, as built"
        checks.append(Check("hashes", engine.path.name, "ok", detail))
    return checks


def check_golden(detector: Detector) -> Check:
    """Run the golden images and compare with what FP32 gave on ONNX Runtime's CPU when the bundle was exported.

    A plan that has no golden values is compared with what FP32 gives on this CPU. Where that is what is checked, the
    cheapest plan of the same graphs that has golden values is run in its place.

    In FP32 a difference is a fault. FP16 and INT8 are meant to differ, and INT8 was never fitted on such images: there
    only values that are not finite are a fault, and verdicts on real images decide the rest.
    """
    bundle, session = detector.bundle, detector.session
    golden, plan = read_golden(bundle), detector.plan
    wanted, reference = golden.outputs(plan), "FP32 at export"
    if wanted is None and (session.backend, session.precision) == REFERENCE:
        nearest = nearest_plan(golden, bundle, plan)
        if nearest is None or (wanted := golden.outputs(nearest)) is None:
            return Check("golden", subject_of(detector), "skipped", "the bundle has no golden values of its graphs")
        got, reference = observe_reference(bundle, nearest, golden.image), "FP32 at export, by a golden plan"
    else:
        got = observe_images(detector, golden.image)
    if wanted is None:
        wanted = observe_reference(bundle, plan, golden.image)
        reference = "FP32 on this CPU, as the plan has no golden values"
    return _compare(detector, wanted, got, reference)


def _compare(detector: Detector, wanted: GoldenOutputs, got: GoldenOutputs, reference: str) -> Check:
    precision = detector.session.precision
    errors = {name: _relative(value, got[name]) for name, value in wanted.items()}
    limits = {name: _limit(detector, name) for name in errors}
    within = all(errors[name] <= limits[name] for name in errors)
    lossy = precision != "fp32" and all(map(math.isfinite, errors.values()))
    outcome: Outcome = "ok" if within else "noted" if lossy else "failed"
    worst = max(errors, key=lambda name: errors[name] / limits[name])
    return Check(
        "golden",
        subject_of(detector),
        outcome,
        f"{worst} within {errors[worst]:.0e} of {reference}, {limits[worst]:.0e} allowed"
        f"{'; no real images, verdicts decide' if outcome == 'noted' else ''}",
    )


def _limit(detector: Detector, output: str) -> float:
    """The largest error that is allowed, relative to the largest value of an output."""
    bundle, precision = detector.bundle, detector.session.precision
    if output in (LOGITS, FEATURES, INSIDE):
        return max(GOLDEN_FLOOR, GOLDEN_SLACK * bundle.graph("classify", precision).error)
    errors = [bundle.graph(role, precision).error for role in list_roles(bundle, detector.plan)]
    return DENOISED_SLACK * max(GOLDEN_FLOOR, GOLDEN_SLACK * max(errors))


def check_contract(detector: Detector) -> Check:
    """Score a few images twice, and in reverse order: a score must not depend on the place in a batch, or the run."""
    images = read_golden(detector.bundle).image
    images = np.concatenate([images, images[..., ::-1], 255 - images])
    first, again = (detector.score_pixels(images).score for _ in range(2))
    reverse = detector.score_pixels(images[::-1]).score[::-1]
    # relative to the mean size of the scores: a fused score may be close to 0
    shift = float(np.max(np.abs(np.stack([again, reverse]) - first)) / max(float(np.abs(first).mean()), 1e-3))
    limit = REPEAT_LIMITS[detector.session.precision]
    outcome: Outcome = "ok" if shift <= limit else "failed"
    detail = f"scores differ by {shift:.0e} with order or run, {limit:.0e} allowed" if shift else EXACT
    return Check("contract", subject_of(detector), outcome, detail)


def _relative(want: npt.NDArray[np.float32], got: npt.NDArray[np.float32]) -> float:
    """Largest difference relative to the largest wanted value; infinite for another shape or values not finite."""
    if want.shape != got.shape or not (np.isfinite(got).all() and np.isfinite(want).all()):
        return float("inf")
    size = float(np.abs(want).max(initial=0))
    return float(np.abs(want - got).max(initial=0)) / max(size, 1e-6)


def subject_of(detector: Detector) -> str:
    """Precision and backend, as the table of checks shows them."""
    return f"{detector.session.precision} on {detector.session.backend}"
