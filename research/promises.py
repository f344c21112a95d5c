"""Simulates deployments on stored scores of real images: python -m research.promises --output FILE.json.

The scores are those of research.deployments. With straight lines between them the in-distribution ones are the
population, so the true false-alarm rate of every threshold is known. Each deployment draws a calibration set, makes
every promise as diffood makes it, and is counted where one is broken:

    global       the fitted threshold                       more than its bound are flagged
    band         every threshold at once                    some threshold flags more than its bound
    per class    thresholds of predicted classes            some class flags more than its bound
    detection    OOD examples like the stored ones          fewer are flagged than the bound

Counts are compared with delta by the exact binomial test. With --nonconform FILE.json, which holds the bounds of its
FPRCertificate by the number of images and by how many lie above, these stand beside ours.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import betainccinv
from scipy.stats import binomtest

from diffood.calibration.promises.detection import bound_detection
from diffood.calibration.promises.per_class import confidence_per_promise
from diffood.calibration.promises.thresholds import images_required, pac_allowed
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.simultaneous import simultaneous_band
from research.deployments import SCORES

ALPHA, DELTA = 0.05, 0.05
SEED = 0
AT_A_TIME = 500  # deployments
CLASS_SHARE = 0.2  # of each of the simulated predicted classes


def in_blocks(count: int, broken: Callable[[int], int]) -> int:
    """Deployments with a broken promise, of `count`."""
    return sum(broken(min(AT_A_TIME, count - start)) for start in range(0, count, AT_A_TIME))


def simulate(scores: Float, ood: Float, n: int, count: int) -> dict[str, int]:
    """How many deployments break each promise, calibrated on n images each."""
    draw, population = np.random.default_rng(SEED), np.sort(scores)
    places = np.linspace(0, 1, len(population))

    def drawn(rows: int, size: int) -> tuple[Float, Float]:
        """Sorted scores, and the true false-alarm rates of thresholds there, [rows, size]."""
        found = np.sort(np.interp(draw.random((rows, size)), places, population), 1)
        return found, 1 - np.interp(found, population, places)

    m = pac_allowed(n, ALPHA, DELTA)
    bound = float(betainccinv(m + 1, n - m, DELTA))
    band = simultaneous_band(n, DELTA)
    bounds = np.array([band.bound(above) for above in range(n)])[::-1]
    classes = round(1 / CLASS_SHARE)
    shared = confidence_per_promise(1 - DELTA, classes)

    def per_class(rows: int) -> int:
        sizes, broken = draw.multinomial(n, [CLASS_SHARE] * classes, rows), np.zeros(rows, bool)
        for row, own in enumerate(sizes.tolist()):
            for size in own:
                if size >= images_required(ALPHA, shared, "pac"):
                    k = pac_allowed(size, ALPHA, 1 - shared)
                    _, rates = drawn(1, size)
                    broken[row] |= rates[0, size - 1 - k] > betainccinv(k + 1, size - k, 1 - shared)
        return int(broken.sum())

    examples = 60
    lower = np.array([bound_detection(k, examples, 1 - DELTA).bound for k in range(examples + 1)])

    def detection(rows: int) -> int:
        thresholds = drawn(rows, n)[0][:, n - 1 - m]
        true = 1 - np.searchsorted(np.sort(ood), thresholds, "right") / len(ood)
        return int((lower[draw.binomial(examples, true)] > true).sum())

    return {
        "global": in_blocks(count, lambda rows: int((drawn(rows, n)[1][:, n - 1 - m] > bound).sum())),
        "band": in_blocks(count, lambda rows: int((drawn(rows, n)[1] > bounds).any(1).sum())),
        "per class": in_blocks(count, per_class),
        "detection": in_blocks(count, detection),
    }


def compare(theirs: dict[str, float], n: int) -> list[dict[str, float]]:
    """Bounds by the number of images above the threshold, theirs and ours."""
    band = simultaneous_band(n, DELTA)
    return [
        {"above": int(above), "nonconform": bound, "diffood": band.bound(int(above))} for above, bound in theirs.items()
    ]


def main() -> None:
    """Parse the command line, simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 1000])
    parser.add_argument("--deployments", type=int, default=10_000)
    parser.add_argument("--nonconform", type=Path, help="JSON: bounds by images, and by the number above")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    stored = json.loads(SCORES.read_text())
    theirs = json.loads(given.nonconform.read_text()) if given.nonconform else {}
    rows = []
    for n in given.images:
        broken = simulate(np.array(stored["ind"]), np.array(stored["ood"]), n, given.deployments)
        for promise, count in broken.items():
            p_value = binomtest(count, given.deployments, DELTA, alternative="greater").pvalue
            rows.append({"images": n, "promise": promise, "broken": count, "kept": bool(p_value > 0.01)})
            print(json.dumps(rows[-1]), flush=True)
    bounds = {n: compare(found, int(n)) for n, found in theirs.items()}
    summary = {"deployments": given.deployments, "delta": DELTA, "promises": rows, "bounds": bounds}
    given.output.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
