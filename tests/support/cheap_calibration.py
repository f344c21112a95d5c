"""Calibrates a bundle with the cheapest plan, for tests that serve and do not look at detection."""

from pathlib import Path

from diffood.calibration.calibrate import calibrate_files
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import Plan

CHEAPEST = Plan(start_times=(120,), stride=120, repeats=1, guidance=0.0)  # one UNet evaluation per image


def calibrate_cheaply(bundle: Path, images: Path, fpr: float = 0.05) -> Path:
    """Calibrate a bundle, with a high `fpr` so that it flags many images; gives the bundle."""
    detector = Detector.load(open_bundle(bundle), CHEAPEST, batch=8, threads=1)
    calibrate_files(detector, list_inputs([str(images)]), fpr, 0.95, "pac").save()
    return bundle
