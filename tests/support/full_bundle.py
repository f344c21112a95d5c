"""Gives a calibrated bundle all the other records there can be: judgements, checks, a tuning, an engine."""

import hashlib
from pathlib import Path

from planted_engine import plant_engine

from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.bundle.parity import (
    CheckRecord,
    ParityLimits,
    ParityRecord,
    SetParity,
    add_checks,
    add_record,
    flip_bound,
    list_problems,
)
from diffood.runtime.bundle.tuning import MeasuredPlan, TuningMeasurement, add_tuned, keep_measured


def judgement_of(bundle: Bundle, flips: int = 1, images: int = 1000) -> ParityRecord:
    """What `diffood verify` would store of an INT8 variant that flips so many verdicts, the other numbers made up."""
    calibration, limits = load_calibration(bundle), ParityLimits()
    sets = {"digits": SetParity(images=500, flips=2, auroc_reference=0.99, auroc_variant=0.9895)}
    return ParityRecord(
        reference=calibration.fingerprint,
        variant=calibration.fingerprint.model_copy(update={"precision": "int8"}),
        calibration_sha256=calibration.sha256,
        limits=limits,
        images=images,
        flips=flips,
        flips_to_alarm=flips,
        flip_bound=flip_bound(flips, images),
        p_value_shift=0.01,
        threshold_shift=-0.002,
        sets=sets,
        images_per_second=100.0,
        reference_images_per_second=50.0,
        problems=list_problems(flips, images, 0, sets, limits),
    )


def complete(path: Path) -> Path:
    """Give a calibrated bundle every record that it lacks; returns its folder."""
    bundle = open_bundle(path)
    record = judgement_of(bundle)
    add_record(bundle, record)
    checks = [
        CheckRecord(variant=record.variant, what=what, outcome="ok", detail=what) for what in ("golden", "contract")
    ]
    add_checks(bundle, checks)
    add_tuned(bundle, [hashlib.sha256(bytes([number])).hexdigest() for number in range(3)])
    measured = ((1.0, 0.9, True), (2.0, 0.95, True), (2.0, 0.95, False), (3.0, 0.8, False))
    plans = tuple(
        MeasuredPlan(cost=cost, auroc=auroc, low=auroc - 0.01, high=auroc + 0.01, front=front, chosen=number == 1)
        for number, (cost, auroc, front) in enumerate(measured)
    )
    keep_measured(bundle, TuningMeasurement(unit="UNet evaluations", limit=2.5, made=False, plans=plans))
    plant_engine(path)
    return path
