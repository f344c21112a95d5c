"""Writes the bounds of nonconform's FPRCertificate: python nonconform_bounds.py FILE.json, where it is installed.

They depend on how many calibration scores lie above a threshold, not on the scores. For research.promises --nonconform.
It needs Python 3.12 and no diffood.
"""

import json
import sys
from pathlib import Path

import numpy as np

IMAGES = (300, 1000, 10_000)
SHARES = (0.0, 0.005, 0.01, 0.03, 0.05, 0.1, 0.2)  # of the images above the threshold
CONFIDENCE = 0.95


def main() -> None:
    """Make a certificate of each size and write what it says."""
    from nonconform.fdr import FPRCertificate  # type: ignore[import-not-found]

    found: dict[int, dict[int, float]] = {}
    for n in IMAGES:
        certificate = FPRCertificate.from_scores(np.arange(float(n)), confidence=CONFIDENCE)
        above = [int(share * n) for share in SHARES]  # its rule is score >= threshold
        found[n] = {m: float(certificate.bound_at(n - m - 0.5)) for m in above}
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
