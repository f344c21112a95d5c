"""Attack: manifests, calibrations and other records of a bundle, damaged at random. Only our errors, on one line."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attacks import reopened, undone
from json_mutations import mutated_records
from made_up import fingerprint_of

from diffood.errors import DiffoodError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import load_calibrated_fusion, load_calibration
from diffood.runtime.bundle.detectors import read_calibrated_detector
from diffood.runtime.bundle.parity import ParityLimits, ParityRecord, SetParity, add_record, flip_bound, load_parity
from diffood.runtime.bundle.tuning import add_tuned, load_measured, load_tuned
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector

MANIFESTS, RECORDS, DETECTORS = 500, 1500, 500


def ends(work: Callable[[], object], record: bytes) -> bool:
    """Whether the work was done; a refusal must be ours, on one line and not endless."""
    try:
        work()
    except DiffoodError as error:
        assert str(error).isprintable(), record[:2000]
        assert len(str(error)) < 6000, record[:2000]
        return False
    return True


def judgement(bundle: Bundle) -> ParityRecord:
    """A variant that passed, in numbers that are made up."""
    reference = fingerprint_of(bundle.plan("plain"))
    return ParityRecord(
        reference=reference,
        variant=reference.model_copy(update={"precision": "int8"}),
        calibration_sha256="0" * 64,
        limits=ParityLimits(),
        images=1000,
        flips=1,
        flips_to_alarm=1,
        flip_bound=flip_bound(1, 1000),
        p_value_shift=0.01,
        threshold_shift=-0.002,
        sets={"digits": SetParity(images=500, flips=0, auroc_reference=0.99, auroc_variant=0.99)},
        images_per_second=100.0,
        reference_images_per_second=50.0,
        problems=(),
    )


def test_damaged_manifests(victim: Path) -> None:
    path = victim / "manifest.json"
    original, seen = path.read_bytes(), {True: 0, False: 0}

    def use() -> None:
        bundle = open_bundle(victim)
        Detector.load(bundle, bundle.plan(), batch=2, threads=1)

    for record in mutated_records(original, MANIFESTS, seed=11):
        path.write_bytes(record)
        seen[ends(use, record)] += 1
    assert min(seen.values()) > 5, seen  # some are harmless: a name, a version


def test_damaged_calibrations(fused: Path) -> None:
    bundle, path = open_bundle(fused), fused / "calibration.json"
    seen = {True: 0, False: 0}

    def use() -> None:
        again = reopened(bundle)
        calibration = load_calibration(again)
        load_calibrated_fusion(again, calibration)
        found = DecisionRule.of(calibration).decide(np.array([0.1, np.nan]), np.array([0, 3]))
        assert found.is_ood[1], "what is no number passes as in-distribution"

    for record in mutated_records(path.read_bytes(), RECORDS, seed=12):
        path.write_bytes(record)
        seen[ends(use, record)] += 1
    assert min(seen.values()) > 5, seen


def test_damaged_records_of_detector_files(fused: Path) -> None:
    bundle, path = open_bundle(fused), fused / "detector.json"
    model, seen = (fused / "detector.onnx").read_bytes(), {True: 0, False: 0}

    def use() -> None:
        assert read_calibrated_detector(reopened(bundle), "fp32").model == model, "another file passes for the detector"

    for record in mutated_records(path.read_bytes(), DETECTORS, seed=14):
        path.write_bytes(record)
        seen[ends(use, record)] += 1
    assert min(seen.values()) > 5, seen  # some are harmless: the plan's name


def test_damaged_records_of_tuning_and_parity(victim: Path, subtests: pytest.Subtests) -> None:
    for name in ["tuning.json", "parity.json"]:
        with subtests.test(name=name), undone(victim):
            bundle, path = open_bundle(victim), victim / name
            add_tuned(bundle, [hashlib.sha256(bytes([number])).hexdigest() for number in range(5)])
            add_record(bundle, judgement(bundle))
            read: dict[str, Callable[[Bundle], object]] = {
                "tuning.json": lambda bundle: (load_tuned(bundle), load_measured(bundle)),
                "parity.json": load_parity,
            }
            read[name](bundle)
            seen = {True: 0, False: 0}
            for record in mutated_records(path.read_bytes(), RECORDS, seed=13):
                path.write_bytes(record)
                seen[ends(lambda: read[name](reopened(bundle)), record)] += 1
            assert seen[False] > 5, seen
