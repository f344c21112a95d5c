"""Images a second of whole passes on the embedded models, by plan, precision and batch.

Run: throughput.py BUNDLE BACKEND[,BACKEND].
"""

import sys
import time
from pathlib import Path

from diffood.errors import DiffoodError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import load_calibrated_fusion, load_calibration
from diffood.runtime.detector import Detector
from diffood.zoo.images import load_set

BATCHES = 8, 64, 512


def main() -> None:
    """Print a line per combination; one that cannot run says why."""
    bundle, backends = open_bundle(Path(sys.argv[1])), sys.argv[2].split(",")
    images = load_set("fashion-test").images[:, None]
    calibration = load_calibration(bundle)
    fusion, fitted = load_calibrated_fusion(bundle, calibration), calibration.fingerprint.plan
    plans = {"calibrated": (fitted, fusion), "plain": (bundle.plan("plain"), None)}
    for name, (plan, fused) in plans.items():
        for backend in backends:
            for precision in bundle.precisions:
                for batch in BATCHES:
                    try:
                        detector = Detector.load(
                            bundle, plan, backend=backend, precision=precision, batch=batch, fusion=fused
                        )
                        detector.score_pixels(images[:batch])
                        began = time.perf_counter()
                        detector.score_pixels(images)
                        found = f"{len(images) / (time.perf_counter() - began):8.0f} images/s"
                    except DiffoodError as error:
                        found = f"{type(error).__name__}: {error}"
                    print(f"{name:<11}{backend:<18}{precision:<6}batch {batch:<5}{found}", flush=True)


if __name__ == "__main__":
    main()
