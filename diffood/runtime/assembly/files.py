"""Writes a bundle's detector files: the plan in force as one graph per precision, with the calibration where it holds.

To be called after whatever they depend on has changed: graphs, the default plan, the calibration, what `diffood verify`
concluded. The same bundle gives the same bytes.
"""

import hashlib

from diffood.runtime.assembly.detector import CalibratedScale, build_detector
from diffood.runtime.assembly.recipe import make_recipe
from diffood.runtime.bundle.bundle import DETECTOR_FILES, Bundle, Precision
from diffood.runtime.bundle.calibration import find_calibration, load_calibrated_fusion
from diffood.runtime.bundle.detectors import (
    DetectorEntry,
    DetectorRecord,
    calibrated_precisions,
    detected_plan,
    hash_graphs,
    list_data,
    load_detectors,
    save_detectors,
)
from diffood.runtime.bundle.graphs import name_of
from diffood.runtime.method.plan import Plan


def write_detectors(bundle: Bundle) -> DetectorRecord:
    """Write the detector file of every precision, then their record; returns it.

    Raises BundleError for a damaged graph or calibration.
    """
    calibration = find_calibration(bundle)
    plan = detected_plan(bundle, calibration)
    scale = CalibratedScale(calibration, load_calibrated_fusion(bundle, calibration)) if calibration else None
    valid = calibrated_precisions(bundle, calibration) if calibration else frozenset()
    for precision in DETECTOR_FILES.keys() - set(bundle.precisions):
        bundle.unlisted.remove(DETECTOR_FILES[precision])
    record = DetectorRecord(
        plan_name=name_of(bundle, plan),
        plan=plan,
        calibration_sha256=calibration.sha256 if calibration else None,
        files=tuple(
            _write(bundle, plan, precision, scale if precision in valid else None) for precision in bundle.precisions
        ),
    )
    save_detectors(bundle, record)
    return record


def refresh_detectors(bundle: Bundle) -> None:
    """Write the detector files anew where `diffood verify` has changed which of them may give verdicts."""
    record, calibration = load_detectors(bundle), find_calibration(bundle)
    if record is None or record.calibration_sha256 is None or calibration is None:
        return
    valid = calibrated_precisions(bundle, calibration)
    if any(entry.calibrated != (entry.precision in valid) for entry in record.files):
        write_detectors(bundle)


def _write(bundle: Bundle, plan: Plan, precision: Precision, scale: CalibratedScale | None) -> DetectorEntry:
    model = build_detector(make_recipe(bundle, plan, precision, weights=False), scale)
    file = DETECTOR_FILES[precision]
    bundle.unlisted.write(file, model)
    return DetectorEntry(
        sha256=hashlib.sha256(model).hexdigest(),
        size=len(model),
        precision=precision,
        file=file,
        data=list_data(bundle, plan, precision),
        graphs=hash_graphs(bundle, plan, precision),
        calibrated=scale is not None,
    )
