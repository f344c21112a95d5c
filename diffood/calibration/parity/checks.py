"""Checks a bundle and its sessions before verdicts are compared: hashes, golden values, repeatable scores."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from diffood.runtime.bundle.arrays import load_arrays
from diffood.runtime.bundle.bundle import Bundle, Precision, Role
from diffood.runtime.bundle.engines import list_engines, read_plan
from diffood.runtime.detector import Detector
from diffood.runtime.method.schedule import NO_REGISTER
from diffood.runtime.method.scoring import Array
from diffood.runtime.sessions import StepInputs

# an engine adds its own rounding (TF32, another order of summation) to the error that the export measured on the CPU
GOLDEN_SLACK, GOLDEN_FLOOR = 4.0, 2e-3
# relative change of a score for the same image in another lane at one batch shape: FP16 on ONNX Runtime's CPU provider
# rounds differently where threads split the batch (2e-4 measured), and int8 rounds such differences to whole steps
REPEAT_LIMITS: dict[Precision, float] = {"fp32": 1e-5, "fp16": 2e-3, "int8": 2e-3}


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
        total = sum(len(read_plan(engine, plan.role)) for plan in engine.record.plans)
        detail = f"{len(engine.record.plans)} plans, {total / 1e6:.1f} MB, as built"
        checks.append(Check("hashes", engine.path.name, "ok", detail))
    return checks


def check_golden(detector: Detector) -> Check:
    """Run the golden inputs and compare the outputs with the FP32 outputs that the export stored.

    In FP32 a difference is a fault. FP16 and INT8 are meant to differ, and the inputs are noise, on which INT8 was
    never fitted: there only values that are not finite are a fault, and verdicts on real images decide the rest.
    """
    bundle, session = detector.bundle, detector.session
    golden = load_arrays(bundle.read(bundle.manifest.golden), bundle.manifest.golden)
    found = session.classify(golden["classify.in.x"])
    errors: dict[Role, float] = {
        "classify": max(
            _relative(golden["classify.out.logits"], found.logits),
            _relative(golden["classify.out.features"], found.features),
        ),
    }
    if detector.plan.denoises:
        step: Role = "step_guided" if detector.plan.guidance > 0 else "step_plain"
        errors[step] = _relative(golden[f"{step}.out.x_next"], _golden_step(detector, golden, step))
    if bundle.manifest.latent:
        errors["encode"] = _relative(golden["encode.out.z"], session.encode(golden["encode.in.x"]))
        errors["decode"] = _relative(golden["decode.out.x"], session.decode(golden["decode.in.z"]))
    limits = {role: max(GOLDEN_FLOOR, GOLDEN_SLACK * bundle.graph(role, session.precision).error) for role in errors}
    within = all(errors[role] <= limits[role] for role in limits)
    lossy = session.precision != "fp32" and all(map(math.isfinite, errors.values()))
    outcome: Outcome = "ok" if within else "noted" if lossy else "failed"
    worst = max(errors, key=lambda role: errors[role] / limits[role])
    return Check(
        "golden",
        subject_of(detector),
        outcome,
        f"{worst} within {errors[worst]:.0e} of FP32 torch, {limits[worst]:.0e} allowed"
        f"{'; noise inputs, verdicts decide' if outcome == 'noted' else ''}",
    )


def _golden_step(detector: Detector, golden: Mapping[str, npt.NDArray[np.float32]], step: Role) -> Array:
    """x_next of the golden inputs, in as many lanes at a time as the session has."""
    session, x = detector.session, golden[f"{step}.in.x"]
    registers = detector.bundle.tables(detector.plan)[0].weights.shape[1]
    results = []
    for begin in range(0, len(x), session.batch):
        rows = range(begin, min(begin + session.batch, len(x)))
        inputs = StepInputs(
            time=np.zeros(session.batch, np.float32),
            label=np.zeros(session.batch, np.int64),
            guidance=np.zeros(session.batch, np.float32),
            coefficients=np.tile(np.array([0, 1, 1, 0], np.float32), (session.batch, 1)),
            weights=np.zeros((session.batch, registers), np.float32),
            store=np.full(session.batch, NO_REGISTER, np.int64),
        )
        for lane, row in enumerate(rows):
            session.put(lane, x[row])
            for name in ("time", "label", "guidance", "coefficients"):
                if f"{step}.in.{name}" in golden:
                    getattr(inputs, name)[lane] = golden[f"{step}.in.{name}"][row]
        session.step(inputs)
        results += [session.take(lane) for lane in range(len(rows))]
    return np.stack(results)


def check_contract(detector: Detector) -> Check:
    """Score the golden images twice, and in reverse order: a score must not depend on its lane."""
    bundle = detector.bundle
    golden = load_arrays(bundle.read(bundle.manifest.golden), bundle.manifest.golden)["classify.in.x"]
    first = detector.score_prepared(golden).score
    again, reverse = detector.score_prepared(golden).score, detector.score_prepared(golden[::-1]).score[::-1]
    # relative to the mean size of the scores: a fused score may be close to 0
    shift = float(np.max(np.abs(np.stack([again, reverse]) - first)) / max(float(np.abs(first).mean()), 1e-3))
    limit = REPEAT_LIMITS[detector.session.precision]
    outcome: Outcome = "ok" if shift <= limit else "failed"
    return Check(
        "contract",
        subject_of(detector),
        outcome,
        f"scores repeat within {shift:.0e} in any lane and run, {limit:.0e} allowed",
    )


def _relative(want: npt.NDArray[np.float32], got: npt.NDArray[np.float32]) -> float:
    """Largest difference relative to the largest wanted value; infinite for another shape or values not finite."""
    if want.shape != got.shape or not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(want - got).max() / max(1.0, float(np.abs(want).max())))


def subject_of(detector: Detector) -> str:
    """Precision and backend, as the table of checks shows them."""
    return f"{detector.session.precision} on {detector.session.backend}"
