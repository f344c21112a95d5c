"""Images a second of whole verdicts on the embedded models: each backend, precision, plan and batch; one image alone.

Run: throughput.py BUNDLE BACKEND[,BACKEND].
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffood.errors import DiffoodError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import load_calibrated_fusion, load_calibration
from diffood.runtime.detector import Detector
from diffood.zoo.images import load_set

ALONE = 30  # images that are timed one at a time


def time_single(detector: Detector, images: npt.NDArray[np.uint8]) -> str:
    """Median and 95 % quantile of the milliseconds of one image."""
    each = []
    for image in images[:ALONE]:
        began = time.perf_counter()
        detector.score(image[None])
        each.append(1e3 * (time.perf_counter() - began))
    return f"{statistics.median(each):8.2f} ms an image, p95 {sorted(each)[int(0.95 * len(each))]:.2f}"


def time_all(detector: Detector, images: npt.NDArray[np.uint8]) -> str:
    """Images a second over all images."""
    began = time.perf_counter()
    detector.score(images)
    return f"{len(images) / (time.perf_counter() - began):8.0f} images/s"


def main() -> None:
    """Print a line per combination; one that cannot run says why."""
    bundle, backends = open_bundle(Path(sys.argv[1])), sys.argv[2].split(",")
    images = load_set("fashion-test").images
    calibration = load_calibration(bundle)
    fusion, fitted = load_calibrated_fusion(bundle, calibration), calibration.fingerprint.plan
    for name, plan in (("calibrated", fitted), ("plain", bundle.plan("plain"))):
        for backend in backends:
            on_gpu = "cuda" in backend
            for precision in bundle.precisions if on_gpu else ("fp32",):
                for batch in (1, 64, 256) if on_gpu else (64,):
                    try:
                        detector = Detector.load(
                            bundle,
                            plan,
                            backend=backend,
                            precision=precision,
                            batch=batch,
                            fusion=fusion if plan == fitted else None,
                        )
                        detector.score(images[: min(batch, 64)])
                        found = (time_single if batch == 1 else time_all)(detector, images)
                    except DiffoodError as error:
                        found = f"{type(error).__name__}: {error}"
                    print(f"{name:<11}{backend:<18}{precision:<6}batch {batch:<5}{found}", flush=True)


if __name__ == "__main__":
    main()
